"""Conversations about streams that another process of the server has: their messages go there and back.

    client ──> a process that has no such stream ──> the one that has it, at its Unix socket

A message is a frame of msgpack; binary audio stays what it is. A stream is told by its token, which is a secret: whose
it is need not be said again, and nobody can open one here where keys are needed.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from msgspec import msgpack

from conure.background import report_failure
from conure.client import protocol
from conure.engine.ipc.frames import drained, read_frame, write_frame
from conure.protocols.internal_errors import CONNECTION, internal_error
from conure.protocols.native.connection import NativeConnection
from conure.protocols.services import Services

__all__ = ["serve_stream_relay"]

_from_client: msgpack.Decoder[protocol.FromClient | bytes] = msgpack.Decoder(protocol.FromClient | bytes)
_encoder = msgpack.Encoder()


async def serve_stream_relay(behind: Services, path: Path) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await _Relayed(behind, reader, writer).serve()

    return await asyncio.start_unix_server(serve, path)


class _Relayed:
    """As the process sees it that has the stream."""

    def __init__(self, behind: Services, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._conversation = NativeConnection(behind.live, behind.access, self._send)

    async def serve(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read())
                await self._conversation.send_events()
                reading.cancel()
            await self._conversation.send_farewell()
        except* OSError:
            pass
        except* Exception as mistake:
            report_failure(CONNECTION, mistake)
            with contextlib.suppress(OSError):
                await self._conversation.send_error(internal_error())
        finally:
            self._conversation.disconnect()
            self._writer.close()

    async def _read(self) -> None:
        while not self._conversation.is_over:
            said = await read_frame(self._reader)
            if said is None:
                raise ConnectionError
            await self._conversation.handle_message(_from_client.decode(said))

    async def _send(self, message: Any) -> None:
        write_frame(self._writer, _encoder.encode(message))
        await drained(self._writer)
