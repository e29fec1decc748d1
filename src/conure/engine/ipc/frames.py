"""Messages between two processes over a socket: a length of four bytes, then the payload.

A socket, because its end reports at once that the other process has gone, whatever the cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator

__all__ = ["drain", "encode_frame", "read_frame", "receive_frame", "write_frame"]

LENGTH = struct.Struct("!I")


def encode_frame(payload: bytes) -> bytes:
    return LENGTH.pack(len(payload)) + payload


def receive_frame(connected: socket.socket) -> bytes | None:
    """Blocks until a frame is there; None when the socket is closed."""
    head = _receive(connected, LENGTH.size)
    return None if head is None else _receive(connected, LENGTH.unpack(head)[0])


def _receive(connected: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        try:
            part = connected.recv(size - len(parts))
        except OSError:  # also when another thread closed the socket
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """`receive_frame` for an event loop."""
    try:
        (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, OSError, RuntimeError):
        return None


def write_frame(writer: asyncio.StreamWriter, payload: bytes) -> None:
    """Raises ConnectionError when the connection is closed, whatever the event loop raises."""
    with _as_connection_error():
        writer.write(encode_frame(payload))


async def drain(writer: asyncio.StreamWriter) -> None:
    """Waits until the write buffer has room. Raises ConnectionError."""
    with _as_connection_error():
        await writer.drain()


@contextlib.contextmanager
def _as_connection_error() -> Iterator[None]:
    """A transport that is closing raises the OSError that closed it; uvloop raises RuntimeError once it is closed."""
    try:
        yield
    except ConnectionError:
        raise
    except (OSError, RuntimeError) as error:
        raise ConnectionResetError(str(error)) from error
