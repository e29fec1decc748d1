"""Messages of Wyoming as bytes.

{"type": "audio-chunk", "data": {...}, "data_length": 51, "payload_length": 2048}\\n
51 bytes of JSON, which are added to `data`
2048 bytes as they are
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from conure.errors import BadRequest

__all__ = ["MAX_LINE_BYTES", "Message", "encoded", "read_message"]

MAX_LINE_BYTES, MOST_DATA, MOST_PAYLOAD = 2**16, 2**20, 2**26
"""Bytes."""
VERSION = "1.10.2"
"""Of the protocol."""


class Message(Struct, frozen=True):
    type: str
    data: dict[str, Any] = {}
    payload: bytes = b""


class _Head(Struct):
    type: str
    data: dict[str, Any] | None = None
    data_length: Annotated[int, Meta(ge=0, le=MOST_DATA)] | None = None
    payload_length: Annotated[int, Meta(ge=0, le=MOST_PAYLOAD)] | None = None


_head = msgspec.json.Decoder(_Head)
_data = msgspec.json.Decoder(dict[str, Any])


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """None at the end, which may be in the middle of one. Raises BadRequest; where the next begins is not known then.

    `reader` has LONGEST_LINE as its limit.
    """
    try:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            return None
        head = _head.decode(line)
        data = head.data or {}
        if head.data_length:
            data |= _data.decode(await reader.readexactly(head.data_length))
        return Message(head.type, data, await reader.readexactly(head.payload_length or 0))
    except asyncio.IncompleteReadError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(
            f"not understood: {error}", "send a line of JSON with a type, and as many bytes as it says"
        ) from None
    except ValueError:
        raise BadRequest(f"a line of more than {MAX_LINE_BYTES} bytes", "put what is long into `data_length`") from None


def encoded(kind: str, data: dict[str, Any]) -> bytes:
    said = msgspec.json.encode(data) if data else b""
    head: dict[str, Any] = {"type": kind, "version": VERSION} | ({"data_length": len(said)} if said else {})
    return msgspec.json.encode(head) + b"\n" + said
