"""`response.create`, an older way to request text, and the dialect that has no other.

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

MAX_TEXTS = 1000
"""Utterances kept for a response that may never be requested."""

ERROR_TYPES = {
    "input_audio_buffer_commit_empty": "no_audio",
    "missing_required_parameter": "missing_audio_base64",
    "unknown_event": "unsupported_type",
    "engine_failed": "inference_error",
    "lag_exceeded": "inference_timeout",
}
"""Error types of this dialect that differ from our codes."""


class Responses:
    """Collects the text since the last response."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque(maxlen=MAX_TEXTS)
        self._pending = self._cancelled = 0

    def add_final(self, final: Final) -> None:
        if final.text:
            self._texts.append(final.text)

    def clear(self) -> None:
        self._texts.clear()

    def request(self) -> None:
        self._pending += 1

    def cancel(self) -> None:
        """Cancels all pending responses."""
        self._cancelled = self._pending

    def render_response(self) -> Iterator[Message]:
        text = " ".join(self._texts)
        self._texts.clear()
        self._pending -= 1
        if self._cancelled:
            self._cancelled -= 1
            return
        if text:
            yield {"type": "response.output_text.delta", "delta": text}
        yield {"type": "response.completed"}


class ResponsesOnly:
    """Renderer for the dialect that sends text in responses only."""

    def render_event(self, event: Event, session: SessionFields, tokenizer: Tokenizer) -> Iterator[Message]:
        yield from ()

    def render_answer(self, request: FinalizeRequest) -> Iterator[Message]:
        if request.kind == "commit":
            yield {"type": "input_audio_buffer.committed"}

    def render_end(self, seconds: float) -> Iterator[Message]:
        yield from ()


def as_responses_error(message: Message) -> Message:
    """Converts an error to this dialect, which has only a type and a message."""
    error = message["error"]
    return {
        "type": "error",
        "error": {"type": ERROR_TYPES.get(error["code"], error["code"]), "message": error["message"]},
    }
