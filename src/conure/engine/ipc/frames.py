"""Messages between two processes over a socket: a length of four bytes, then so many bytes.

A socket, because its end tells at once that the other process is gone, however it went.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator

__all__ = ["drained", "frame", "read_frame", "receive_frame", "write_frame"]

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
        except OSError:  # also where this side closed it meanwhile
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
    except (asyncio.IncompleteReadError, OSError, RuntimeError):
        return None


def write_frame(writer: asyncio.StreamWriter, payload: bytes) -> None:
    """Raises ConnectionError where the connection is closed, however the event loop tells of it."""
    with _told_as_lost():
        writer.write(frame(payload))


async def drained(writer: asyncio.StreamWriter) -> None:
    """Waits until there is room for more. Raises ConnectionError."""
    with _told_as_lost():
        await writer.drain()


@contextlib.contextmanager
def _told_as_lost() -> Iterator[None]:
    """A transport that is dying raises what ended it, any OSError; on uvloop a closed one raises RuntimeError."""
    try:
        yield
    except ConnectionError:
        raise
    except (OSError, RuntimeError) as error:
        raise ConnectionResetError(str(error)) from error
