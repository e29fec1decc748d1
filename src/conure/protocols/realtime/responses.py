"""`response.create`, an older way to ask for what was said, and the protocol that knows no other.

client  append, append, commit        server  committed
client  response.create               server  response.output_text.delta, response.completed
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from conure.protocols.realtime.messages import Message
from conure.protocols.realtime.session import SessionFields
from conure.protocols.realtime.streams import FinalizeRequest
from conure.service.events import Event, Final
from conure.text.tokenizer import Tokenizer

__all__ = ["ResponsesOnly", "Responses", "as_responses_error"]

MOST_TEXTS = 1000
"""Utterances that are kept for a response that may never be asked for."""

WORDS = {
    "input_audio_buffer_commit_empty": "no_audio",
    "missing_required_parameter": "missing_audio_base64",
    "unknown_event": "unsupported_type",
    "engine_failed": "inference_error",
    "lag_exceeded": "inference_timeout",
}
"""What it calls mistakes, where that is not their code."""


class Responses:
    """What was said since the last one."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque(maxlen=MOST_TEXTS)
        self._waiting = self._cancelled = 0

    def hear(self, final: Final) -> None:
        if final.text:
            self._texts.append(final.text)

    def forget(self) -> None:
        self._texts.clear()

    def ask(self) -> None:
        self._waiting += 1

    def cancel(self) -> None:
        """Those that were asked for and not answered."""
        self._cancelled = self._waiting

    def answer(self) -> Iterator[Message]:
        text = " ".join(self._texts)
        self._texts.clear()
        self._waiting -= 1
        if self._cancelled:
            self._cancelled -= 1
            return
        if text:
            yield {"type": "response.output_text.delta", "delta": text}
        yield {"type": "response.completed"}


class ResponsesOnly:
    """Of the protocol that tells of words in responses alone."""

    def render_event(self, event: Event, asked: SessionFields, tokenizer: Tokenizer) -> Iterator[Message]:
        yield from ()

    def render_answer(self, request: FinalizeRequest) -> Iterator[Message]:
        if request.kind == "commit":
            yield {"type": "input_audio_buffer.committed"}

    def render_end(self, seconds: float) -> Iterator[Message]:
        yield from ()


def as_responses_error(message: Message) -> Message:
    """A mistake as that protocol tells it: by its type."""
    fault = message["error"]
    return {"type": "error", "error": {"type": WORDS.get(fault["code"], fault["code"]), "message": fault["message"]}}
