"""Messages to what a WebSocket carries, and back: JSON texts, or msgpack."""

from __future__ import annotations

import logging
from typing import Any, Literal

import msgspec

from conure.client.errors import BadMessage
from conure.client.protocol import Audio, FromClient, FromServer

__all__ = ["Codec", "WireFormat"]

WireFormat = Literal["binary", "json", "msgpack"]
"""Audio as bare binary frames beside JSON; everything as JSON, audio in base64; everything as msgpack."""

log = logging.getLogger(__name__)


class _Heading(msgspec.Struct):
    type: str
    seq: int | None = None


class Codec:
    """One way to write the protocol down."""

    def __init__(self, form: WireFormat = "binary") -> None:
        self.wire_format = form
        codec: Any = msgspec.msgpack if form == "msgpack" else msgspec.json
        self._encoder = codec.Encoder()
        self._decoder = codec.Decoder(FromServer)
        self._headings = codec.Decoder(_Heading)

    def render(self, message: FromClient | bytes) -> str | bytes:
        """A message, or audio, as a text frame (str) or a binary one (bytes)."""
        if isinstance(message, bytes):
            if self.wire_format == "binary":
                return message
            message = Audio(data=message)
        encoded: bytes = self._encoder.encode(message)
        return encoded if self.wire_format == "msgpack" else encoded.decode()

    def parse(self, data: str | bytes) -> FromServer | None:
        """The message, or None for one of a kind that came into the protocol after this client. Raises BadMessage."""
        try:
            message: FromServer = self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            if not self._is_of_later_kind(data):
                shown = data[:60]
                raise BadMessage(
                    f"the server sent {shown!r}: {error}", "is this the URL of a Conure server?"
                ) from error
            return None
        return message

    def _is_of_later_kind(self, data: str | bytes) -> bool:
        try:
            heading: _Heading = self._headings.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        if heading.type in KINDS:
            return False
        log.warning("a message of a kind not known was passed over: %r", heading.type)
        return True


KINDS = {kind.__struct_config__.tag for kind in FromServer.__args__}
