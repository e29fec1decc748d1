"""Encoding of Wyoming messages.

{"type": "audio-chunk", "data": {...}, "data_length": 51, "payload_length": 2048}\\n
51 bytes of JSON, merged into `data`
2048 bytes of payload
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from conure.errors import BadRequest

__all__ = ["MAX_LINE_BYTES", "Message", "encode_message", "read_message"]

MAX_LINE_BYTES, MAX_DATA_BYTES, MAX_PAYLOAD_BYTES = 2**16, 2**20, 2**26
"""Bytes."""
PROTOCOL_VERSION = "1.10.2"
"""Version of the protocol."""


class Message(Struct, frozen=True):
    type: str
    data: dict[str, Any] = {}
    payload: bytes = b""


class _Header(Struct):
    type: str
    data: dict[str, Any] | None = None
    data_length: Annotated[int, Meta(ge=0, le=MAX_DATA_BYTES)] | None = None
    payload_length: Annotated[int, Meta(ge=0, le=MAX_PAYLOAD_BYTES)] | None = None


_header_decoder = msgspec.json.Decoder(_Header)
_data_decoder = msgspec.json.Decoder(dict[str, Any])


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """Returns None at the end of input, even within a message. Raises BadRequest, after which reading cannot go on.

    `reader` must have the limit MAX_LINE_BYTES.
    """
    try:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            return None
        header = _header_decoder.decode(line)
        data = header.data or {}
        if header.data_length:
            data |= _data_decoder.decode(await reader.readexactly(header.data_length))
        return Message(header.type, data, await reader.readexactly(header.payload_length or 0))
    except asyncio.IncompleteReadError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(
            f"invalid message: {error}", "send a line of JSON with a type, then as many bytes as it announces"
        ) from None
    except ValueError:
        raise BadRequest(
            f"a line of more than {MAX_LINE_BYTES} bytes", "send long data after the line, with `data_length`"
        ) from None


def encode_message(type_: str, data: dict[str, Any]) -> bytes:
    body = msgspec.json.encode(data) if data else b""
    header: dict[str, Any] = {"type": type_, "version": PROTOCOL_VERSION} | ({"data_length": len(body)} if body else {})
    return msgspec.json.encode(header) + b"\n" + body
