"""Client side of a stream that another server process owns; counterpart of `stream_relay`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from msgspec import msgpack

from conure.client import protocol
from conure.engine.ipc.frames import encode_frame, read_frame

__all__ = ["RemoteStream"]

_from_server: msgpack.Decoder[protocol.FromServer] = msgpack.Decoder(protocol.FromServer)
_encoder = msgpack.Encoder()


class RemoteStream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @staticmethod
    async def connect(path: Path) -> RemoteStream | None:
        """None if the process has ended, and its streams with it."""
        try:
            return RemoteStream(*await asyncio.open_unix_connection(path))
        except OSError:
            return None

    async def send_message(self, message: protocol.FromClient | bytes) -> None:
        """Waits for back-pressure of the other process. Messages to a closed connection are dropped."""
        try:
            self._writer.write(encode_frame(_encoder.encode(message)))
            await self._writer.drain()
        except (OSError, RuntimeError):
            pass  # `receive_message` detects it

    async def receive_message(self) -> protocol.FromServer | None:
        """None at the end of the connection."""
        data = await read_frame(self._reader)
        return None if data is None else _from_server.decode(data)

    def close(self) -> None:
        self._writer.close()
