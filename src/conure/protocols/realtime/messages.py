"""What is said over a Realtime socket, both ways, and mistakes in its form."""

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
    "error",
    "read_event_id",
    "client_event",
]

Message = dict[str, Any]

APPEND = "input_audio_buffer.append"
CODES = errors.CODES | {"bad_option": "invalid_value"}
PARAMS = {
    "unknown_model": "session.audio.input.transcription.model",
    "unsupported_language": "session.audio.input.transcription.language",
}


class BadClientEvent(BadOption):
    """A message that cannot be served now, or is none; with OpenAI's code for that."""

    def __init__(self, name: str, message: str, hint: str | None = None, param: str | None = None) -> None:
        super().__init__(message, hint)
        self.name, self.param = name, param


class ClientEvent(Struct, frozen=True):
    """A client's message. Fields that are not known are not looked at."""

    type: str
    event_id: str | None = None
    session: dict[str, Any] | None = None
    audio: bytes | None = None
    """In base64."""
    audio_base64: bytes | None = None
    runtime_config: dict[str, Any] | None = None


class _Signed(Struct, frozen=True):
    event_id: str | None = None


_said = msgspec.json.Decoder(ClientEvent)
_signed = msgspec.json.Decoder(_Signed)


class IdSource:
    """Ids of one connection."""

    def __init__(self) -> None:
        self.session = f"sess_{secrets.token_hex(12)}"
        self._prefix = secrets.token_hex(6)
        self._events, self._items = itertools.count(1), itertools.count(1)

    def event(self) -> str:
        return f"event_{self._prefix}{next(self._events):06}"

    def item(self) -> str:
        return f"item_{self._prefix}{next(self._items):04}"


def client_event(text: str | bytes) -> ClientEvent:
    """Raises Misstep."""
    try:
        return _said.decode(text)
    except msgspec.ValidationError as fault:
        raise _misstep(str(fault)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise BadClientEvent("invalid_json", f"the message is not JSON: {fault}") from None


def read_event_id(text: str | bytes) -> str | None:
    """Of a message that was not understood."""
    try:
        return _signed.decode(text).event_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def error(fault: ConureError | Failed, event_id: str | None = None) -> Message:
    """`event_id`: of the client's message that was at fault."""
    return {"type": "error", "error": error_body(fault) | {"event_id": event_id}}


def error_body(fault: ConureError | Failed) -> Message:
    param = fault.param if isinstance(fault, BadClientEvent | BadSession) else PARAMS.get(fault.code)
    code = fault.name if isinstance(fault, BadClientEvent) else CODES.get(fault.code, fault.code)
    return {"type": error_code_for(fault).openai, "code": code, "message": message_with_hint(fault), "param": param}


def _misstep(fault: str) -> BadClientEvent:
    _, _, path = fault.partition(" - at `$.")
    param = path.rstrip("`") or None
    if param in ("audio", "audio_base64"):
        return BadClientEvent("invalid_base64", f"{param} is not base64", None, param)
    return BadClientEvent("invalid_value", f"the message is not understood: {fault}", None, param)
