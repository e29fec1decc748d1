"""Serves streams of this process to clients that are connected to another server process.

    client ──> process with the connection ──> process with the stream, at its Unix socket

Each message is a frame of msgpack; binary audio is a msgpack byte string. A stream is identified by its token, which is
a secret: the caller is not authenticated again, and no stream can be opened here if keys are required.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from msgspec import msgpack

from conure.background import report_failure
from conure.client import protocol
from conure.engine.ipc.frames import drain, read_frame, write_frame
from conure.protocols.internal_errors import CONNECTION, internal_error
from conure.protocols.native.connection import NativeConnection
from conure.protocols.services import Services

__all__ = ["serve_stream_relay"]

_from_client: msgpack.Decoder[protocol.FromClient | bytes] = msgpack.Decoder(protocol.FromClient | bytes)
_encoder = msgpack.Encoder()


async def serve_stream_relay(services: Services, path: Path) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await _RelayedConnection(services, reader, writer).serve()

    return await asyncio.start_unix_server(serve, path)


class _RelayedConnection:
    """The side of the process that owns the stream."""

    def __init__(self, services: Services, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._connection = NativeConnection(services.live, services.access, self._send)

    async def serve(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read())
                await self._connection.send_events()
                reading.cancel()
            await self._connection.send_farewell()
        except* OSError:
            pass
        except* Exception as error:
            report_failure(CONNECTION, error)
            with contextlib.suppress(OSError):
                await self._connection.send_error(internal_error())
        finally:
            self._connection.disconnect()
            self._writer.close()

    async def _read(self) -> None:
        while not self._connection.is_over:
            data = await read_frame(self._reader)
            if data is None:
                raise ConnectionError
            await self._connection.handle_message(_from_client.decode(data))

    async def _send(self, message: Any) -> None:
        write_frame(self._writer, _encoder.encode(message))
        await drain(self._writer)
