"""Client events of the Realtime protocol, ids, and errors in its format."""

from __future__ import annotations

import itertools
import secrets
from typing import Any

import msgspec
from msgspec import Struct

from conure.errors import BadOption, ConureError
from conure.protocols.error_codes import error_code_for, message_with_hint
from conure.protocols.openai import errors
from conure.protocols.realtime.session import BadSession
from conure.service.events import Failed

__all__ = [
    "APPEND",
    "Message",
    "BadClientEvent",
    "IdSource",
    "ClientEvent",
    "error_body",
    "error_event",
    "read_event_id",
    "client_event",
]

Message = dict[str, Any]

APPEND = "input_audio_buffer.append"
CODES = errors.CODES | {"bad_option": "invalid_value"}
ERROR_PARAMS = {
    "unknown_model": "session.audio.input.transcription.model",
    "unsupported_language": "session.audio.input.transcription.language",
}


class BadClientEvent(BadOption):
    """An invalid client event, or one that is not possible now; `name` is OpenAI's error code."""

    def __init__(self, name: str, message: str, hint: str | None = None, param: str | None = None) -> None:
        super().__init__(message, hint)
        self.name, self.param = name, param


class ClientEvent(Struct, frozen=True):
    """A message from the client. Unknown fields are ignored."""

    type: str
    event_id: str | None = None
    session: dict[str, Any] | None = None
    audio: bytes | None = None
    """Base64 on the wire."""
    audio_base64: bytes | None = None
    runtime_config: dict[str, Any] | None = None


class _EventId(Struct, frozen=True):
    event_id: str | None = None


_event_decoder = msgspec.json.Decoder(ClientEvent)
_id_decoder = msgspec.json.Decoder(_EventId)


class IdSource:
    """Generates the ids of one connection."""

    def __init__(self) -> None:
        self.session = f"sess_{secrets.token_hex(12)}"
        self._prefix = secrets.token_hex(6)
        self._events, self._items = itertools.count(1), itertools.count(1)

    def event(self) -> str:
        return f"event_{self._prefix}{next(self._events):06}"

    def item(self) -> str:
        return f"item_{self._prefix}{next(self._items):04}"


def client_event(text: str | bytes) -> ClientEvent:
    """Raises BadClientEvent."""
    try:
        return _event_decoder.decode(text)
    except msgspec.ValidationError as error:
        raise _invalid_event(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadClientEvent("invalid_json", f"the message is not JSON: {error}") from None


def read_event_id(text: str | bytes) -> str | None:
    """Reads the event id of a message that is otherwise invalid."""
    try:
        return _id_decoder.decode(text).event_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def error_event(error: ConureError | Failed, event_id: str | None = None) -> Message:
    """`event_id`: of the client event that caused the error."""
    return {"type": "error", "error": error_body(error) | {"event_id": event_id}}


def error_body(error: ConureError | Failed) -> Message:
    param = error.param if isinstance(error, BadClientEvent | BadSession) else ERROR_PARAMS.get(error.code)
    code = error.name if isinstance(error, BadClientEvent) else CODES.get(error.code, error.code)
    return {"type": error_code_for(error).openai, "code": code, "message": message_with_hint(error), "param": param}


def _invalid_event(error: str) -> BadClientEvent:
    _, _, path = error.partition(" - at `$.")
    param = path.rstrip("`") or None
    if param in ("audio", "audio_base64"):
        return BadClientEvent("invalid_base64", f"{param} is not base64", None, param)
    return BadClientEvent("invalid_value", f"invalid message: {error}", None, param)
