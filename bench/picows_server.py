"""WebSockets by picows: frames go to a connection's callback, without an application framework.

This is the minimum for audio. A production server would also need back-pressure for slow clients, bounded queues, and
HTTP elsewhere.
"""

from __future__ import annotations

import asyncio

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

from bench.packets import service
from bench.websocket_load import LATENCY_MS
from conure.client import protocol
from conure.protocols.native.connection import NativeConnection
from conure.service.access import AnonymousAccess
from conure.service.live_service import LiveService

__all__ = ["serve_picows"]

PONG = b'{"type":"pong"}'

_from_json, _to_json = msgspec.json.Decoder(protocol.FromClient), msgspec.json.Encoder()


class Discard(WSListener):  # type: ignore[misc]
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, PONG)
        else:
            frame.get_payload_as_bytes()


class NativeListener(WSListener):  # type: ignore[misc]
    """The native protocol: audio is processed synchronously if possible, everything else through a queue."""

    def __init__(self, live: LiveService) -> None:
        super().__init__()
        self._connection = NativeConnection(live, AnonymousAccess(), self._send)
        self._queue: asyncio.Queue[bytes | protocol.FromClient] = asyncio.Queue()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._tasks = [asyncio.create_task(self._connection.send_events()), asyncio.create_task(self._read())]

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        data = frame.get_payload_as_bytes()
        if frame.msg_type == WSMsgType.TEXT:
            self._queue.put_nowait(_from_json.decode(data))
        elif not self._queue.empty() or not self._connection.try_push_audio(data):
            self._queue.put_nowait(data)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        for task in self._tasks:
            task.cancel()
        self._connection.disconnect()

    async def _read(self) -> None:
        while True:
            await self._connection.handle_message(await self._queue.get())

    async def _send(self, message: protocol.FromServer) -> None:
        self._transport.send(WSMsgType.TEXT, _to_json.encode(message))


async def serve_picows(application: str, port: int) -> None:
    async with service(LATENCY_MS) as (live, _):
        server = await ws_create_server(
            lambda request: Discard() if application == "empty" else NativeListener(live), "127.0.0.1", port
        )
        await server.serve_forever()
