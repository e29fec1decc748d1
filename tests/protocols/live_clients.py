"""Clients of the native protocol over WebSocket and TCP."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.protocols.servers import PATIENCE, Server

__all__ = [
    "Client",
    "Lines",
    "Message",
    "TINY",
    "Socket",
    "converse",
    "finals",
    "lines",
    "pcm16",
    "pieces",
    "socket_of",
    "spoken",
]

Message = dict[str, Any]

TINY: Message = {"type": "config", "model": "tiny", "endpointing": {"silence": 1.5}}
"""Opens a stream in which the demo is one utterance."""


def pcm16(samples: np.ndarray) -> bytes:
    return (np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes()


def pieces(data: bytes, size: int = 6_400) -> list[bytes]:
    return [data[begin : begin + size] for begin in range(0, len(data), size)]


def spoken(data: bytes, **fields: Any) -> Message:
    """An audio message in JSON."""
    return {"type": "audio", "data": base64.b64encode(data).decode()} | fields


class Client(Protocol):
    def say(self, message: Message | bytes | str) -> None: ...

    def hear(self) -> Message | None:
        """The next message; None if the server has closed the connection."""
        ...

    def cut(self) -> None:
        """Resets the connection."""
        ...


class Socket:
    """A WebSocket client. Sends audio as binary messages."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def say(self, message: Message | bytes | str) -> None:
        self.connection.send(json.dumps(message) if isinstance(message, dict) else message)

    def hear(self) -> Message | None:
        try:
            sent = self.connection.recv(PATIENCE)
        except ConnectionClosed:
            return None
        message: Message = json.loads(sent)
        return message

    def cut(self) -> None:
        _reset(self.connection.socket)


class Lines:
    """A TCP client. Sends audio in JSON."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.greeting: Message | None = None
        """The server's first message."""
        self._lines = connection.makefile("rb")

    def say(self, message: Message | bytes | str) -> None:
        if isinstance(message, bytes):
            message = spoken(message)
        sent = json.dumps(message) if isinstance(message, dict) else message
        self.connection.sendall(sent.encode() + b"\n")

    def hear(self) -> Message | None:
        try:
            line = self._lines.readline()
        except ConnectionResetError:
            return None
        return json.loads(line) if line else None

    def cut(self) -> None:
        _reset(self.connection)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    with suppress(OSError):  # the server may have closed it before
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def socket_of(server: Server, path: str = "/v1/stream", **options: Any) -> Iterator[Socket]:
    """`options`: of `connect`; the default headers have the server's key."""
    options = {"additional_headers": server.headers, "max_size": None, "compression": None} | options
    with connect(server.url(path), open_timeout=PATIENCE, **options) as connection:
        yield Socket(connection)


@contextmanager
def lines(server: Server) -> Iterator[Lines]:
    with socket.create_connection((server.host, server.tcp), timeout=PATIENCE) as connection:
        client = Lines(connection)
        with client._lines:
            client.greeting = client.hear()
            assert client.greeting
            assert client.greeting["type"] == "hello"
            yield client


def converse(client: Client, sent: list[Message | bytes]) -> list[Message]:
    """Sends all messages and reads until the server closes the connection."""
    for message in sent:
        client.say(message)
    received = []
    while (response := client.hear()) is not None:
        received.append(response)
    return received


def finals(received: list[Message]) -> str:
    return " ".join(message["text"] for message in received if message["type"] == "final" and message["text"])
