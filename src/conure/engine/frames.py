"""Messages between two processes over a socket: a length of four bytes, then so many bytes.

A socket, because its end tells at once that the other process is gone, however it went.
"""

from __future__ import annotations

import asyncio
import socket
import struct

__all__ = ["frame", "read_frame", "receive_frame"]

LENGTH = struct.Struct("!I")


def frame(payload: bytes) -> bytes:
    return LENGTH.pack(len(payload)) + payload


def receive_frame(end: socket.socket) -> bytes | None:
    """Waits; None where the other side closed."""
    head = _receive(end, LENGTH.size)
    return None if head is None else _receive(end, LENGTH.unpack(head)[0])


def _receive(end: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        try:
            part = end.recv(size - len(parts))
        except ConnectionError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The same on an event loop."""
    try:
        (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
