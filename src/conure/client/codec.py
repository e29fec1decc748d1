"""Encodes messages as WebSocket frames and decodes them: JSON texts or msgpack."""

from __future__ import annotations

import logging
from typing import Any, Literal

import msgspec

from conure.client.errors import BadMessage
from conure.client.protocol import Audio, FromClient, FromServer

__all__ = ["Codec", "WireFormat"]

WireFormat = Literal["binary", "json", "msgpack"]
"""`binary`: JSON, with audio as plain binary frames. `json`: all JSON, audio in base64. `msgpack`: all msgpack."""

log = logging.getLogger(__name__)


class _Heading(msgspec.Struct):
    type: str
    seq: int | None = None


class Codec:
    """Encoder and decoder of one wire format."""

    def __init__(self, form: WireFormat = "binary") -> None:
        self.wire_format = form
        codec: Any = msgspec.msgpack if form == "msgpack" else msgspec.json
        self._encoder = codec.Encoder()
        self._decoder = codec.Decoder(FromServer)
        self._headings = codec.Decoder(_Heading)

    def render(self, message: FromClient | bytes) -> str | bytes:
        """Encodes a message or audio as a text frame (str) or a binary frame (bytes)."""
        if isinstance(message, bytes):
            if self.wire_format == "binary":
                return message
            message = Audio(data=message)
        encoded: bytes = self._encoder.encode(message)
        return encoded if self.wire_format == "msgpack" else encoded.decode()

    def parse(self, data: str | bytes) -> FromServer | None:
        """Decodes a message; None if its type is newer than this client. Raises BadMessage."""
        try:
            message: FromServer = self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            if not self._has_unknown_type(data):
                shown = data[:60]
                raise BadMessage(
                    f"the server sent {shown!r}: {error}", "is this the URL of a Conure server?"
                ) from error
            return None
        return message

    def _has_unknown_type(self, data: str | bytes) -> bool:
        try:
            heading: _Heading = self._headings.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        if heading.type in TYPES:
            return False
        log.warning("skipped a message of unknown type %r", heading.type)
        return True


TYPES = {struct.__struct_config__.tag for struct in FromServer.__args__}
