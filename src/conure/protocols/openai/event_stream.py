"""A transcript as server-sent events while it is computed. The response begins with the first words."""

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
from conure.protocols.openai.transcript_formats import as_json, known_language, render_done
from conure.protocols.transcription_progress import TranscriptionProgress
from conure.text.segments import segments_from_words
from conure.text.tokenizer import Tokenizer
from conure.types import Transcript, Word

__all__ = ["EventStream", "Transcribe"]

KEEP_ALIVE = b": still transcribing\n\n"
"""A comment that keeps proxies from closing the connection while there are no words."""

Transcribe = Callable[[Callable[[Word], None]], Coroutine[Any, Any, Transcript]]
"""Transcribes a recording and calls back for each word."""


class EventStream(StreamedResponse):
    media_type = "text/event-stream"

    def __init__(
        self,
        resources: AsyncExitStack,
        transcribe: Transcribe,
        model: ModelInfo,
        tokenizer: Tokenizer | None,
        headers: dict[str, str],
    ) -> None:
        """`tokenizer`: given if log probabilities are requested."""
        super().__init__(resources, headers)
        self._transcribe = transcribe
        self._model = model
        self._tokenizer = tokenizer

    async def body_parts(self) -> AsyncGenerator[bytes, None]:
        """Yields a delta per new sentence. The deltas add up to the text of the last event."""
        previous: Word | None = None
        progress = TranscriptionProgress(self._transcribe)
        try:
            while (new_words := await progress.next_updates()) is not None:
                for segment in segments_from_words(new_words):
                    yield _event(as_json(self._delta(segment.words, previous)))
                    previous = segment.words[-1]
                if not new_words:
                    yield KEEP_ALIVE
            transcript = progress.transcript()
            yield _event(as_json(render_done(transcript, known_language(transcript, self._model), self._tokenizer)))
        finally:
            await progress.close()

    def error_response(self, error: ConureError) -> Response:
        return error_response(error)

    def error_part(self, error: ConureError) -> bytes:
        return _event(error_body(error).model_dump_json())

    def _delta(self, words: tuple[Word, ...], previous: Word | None) -> Delta:
        logprobs = list(log_probabilities(words, self._tokenizer, previous)) if self._tokenizer else None
        return Delta(delta=text_after(words, previous), logprobs=logprobs)


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()
