"""A transcript as server-sent events while it is made; the first of them comes with the first words."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from fastapi.responses import Response

from conure.engine.plan import ModelInfo
from conure.errors import ConureError
from conure.protocols.http.streamed_response import StreamedResponse
from conure.protocols.openai.errors import error_body, error_response
from conure.protocols.openai.logprobs import log_probabilities, text_after
from conure.protocols.openai.schemas import Delta
from conure.protocols.openai.transcript_formats import as_json, done, known_language
from conure.protocols.transcription_progress import TranscriptionProgress
from conure.text.segments import segments_from_words
from conure.text.tokenizer import Tokenizer
from conure.types import Transcript, Word

__all__ = ["EventStream", "Transcribe"]

STILL_THERE = b": still transcribing\n\n"
"""So that nobody between gives up while nothing is said."""

Transcribe = Callable[[Callable[[Word], None]], Coroutine[Any, Any, Transcript]]
"""Transcribes a recording, and tells each word."""


class EventStream(StreamedResponse):
    media_type = "text/event-stream"

    def __init__(
        self,
        held: AsyncExitStack,
        transcribe: Transcribe,
        card: ModelInfo,
        logprobs: Tokenizer | None,
        headers: dict[str, str],
    ) -> None:
        """`logprobs`: the tokenizer where they are wanted."""
        super().__init__(held, headers)
        self._transcribe = transcribe
        self._card = card
        self._logprobs = logprobs

    async def body_parts(self) -> AsyncGenerator[bytes, None]:
        """A delta for each sentence of what is new; deltas together are the text of the last event."""
        before: Word | None = None
        making = TranscriptionProgress(self._transcribe)
        try:
            while (fresh := await making.next_updates()) is not None:
                for segment in segments_from_words(fresh):
                    yield _event(as_json(self._delta(segment.words, before)))
                    before = segment.words[-1]
                if not fresh:
                    yield STILL_THERE
            transcript = making.transcript()
            yield _event(as_json(done(transcript, known_language(transcript, self._card), self._logprobs)))
        finally:
            await making.close()

    def error_response(self, error: ConureError) -> Response:
        return error_response(error)

    def error_part(self, error: ConureError) -> bytes:
        return _event(error_body(error).model_dump_json())

    def _delta(self, words: tuple[Word, ...], before: Word | None) -> Delta:
        logprobs = list(log_probabilities(words, self._logprobs, before)) if self._logprobs else None
        return Delta(delta=text_after(words, before), logprobs=logprobs)


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()
