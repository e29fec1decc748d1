"""The web port with a test application: checks that the used internals of uvicorn and websockets work as expected.

The protocols themselves are tested with a server process. This test runs in the fast tier, and with the oldest allowed
versions of both libraries.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from conure.protocols.http.connection_limits import ConnectionLimits
from conure.protocols.http.uvicorn_http import LimitedHttpProtocol
from conure.protocols.http.uvicorn_websocket import DIRECT_AUDIO, SET_RECEIVER, DirectWebSocket
from tests.waiting import PATIENCE, until

Receive, Send = Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]
PACKETS = [bytes([number]) * size for number, size in enumerate((1, 2, 125, 126, 640, 65_535, 65_536, 90_000))]


class App:
    """Records messages and their path, answers `?` with the record, rejects `/no`, and closes at `end`."""

    def __init__(self) -> None:
        self.directly: list[bytes] = []
        self.heard: list[bytes | str] = []
        self.codes: list[int] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})
            return
        await receive()
        if scope["path"] == "/no":
            await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"no"})
            return
        scope["extensions"][DIRECT_AUDIO][SET_RECEIVER](self._take)
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            sent = message.get("text") or message.get("bytes")
            if sent == "?":
                await send({"type": "websocket.send", "text": json.dumps(sum(map(len, self.directly)))})
            elif sent == "end":
                await send({"type": "websocket.close", "code": 1012})
            else:
                self.heard.append(sent)
        self.codes.append(message["code"])

    def _take(self, data: bytes) -> bool:
        self.directly.append(data)
        self.heard.append(data)
        return True


@contextlib.asynccontextmanager
async def port(app: App) -> AsyncIterator[str]:
    connections = ConnectionLimits()

    def create_protocol(**options: Any) -> LimitedHttpProtocol:
        return LimitedHttpProtocol(connection=connections.admit("web"), **options)

    config = uvicorn.Config(
        app,
        port=0,
        log_config=None,
        lifespan="off",
        http=create_protocol,  # type: ignore[arg-type]
        ws=DirectWebSocket,
        ws_per_message_deflate=False,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    await until(lambda: server.started or serving.done())
    host, number = server.servers[0].sockets[0].getsockname()[:2]
    try:
        yield f"{host}:{number}"
    finally:
        server.should_exit = True
        await serving


def run_with_client(scenario: Callable[[ClientConnection, App], Awaitable[None]]) -> App:
    app = App()

    async def run() -> None:
        async with asyncio.timeout(PATIENCE), port(app) as address:
            async with connect(f"ws://{address}/yes", max_size=None, compression=None) as connection:
                await scenario(connection, app)
            await until(lambda: app.codes)

    asyncio.run(run())
    return app


def test_direct_and_queued_messages_stay_in_order() -> None:
    async def scenario(connection: ClientConnection, _: App) -> None:
        for packet in PACKETS:
            await connection.send(packet)
            await connection.send([packet[:1], packet[1:]])
            await connection.send("between")
        await (await connection.ping())
        await connection.send("?")
        assert json.loads(await connection.recv()) > 0

    app = run_with_client(scenario)
    assert app.heard == [sent for packet in PACKETS for sent in (packet, packet, "between")]
    assert app.codes == [1000]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Frame(Opcode.TEXT, b"\xff").serialize(mask=True), 1007),
        (Frame(Opcode.BINARY, b"1234").serialize(mask=False), 1002),
        (b"\xff\xff\xff\xff\xff\xff\xff", 1002),
    ],
    ids=["no text", "not masked", "no frame"],
)
def test_invalid_frame_closes_the_connection_with_a_reason(frame: bytes, code: int) -> None:
    async def scenario(connection: ClientConnection, _: App) -> None:
        connection.transport.write(frame)
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert connection.close_code == code

    assert run_with_client(scenario).codes == [code]


def test_application_closes_the_connection() -> None:
    async def scenario(connection: ClientConnection, _: App) -> None:
        await connection.send("end")
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert connection.close_code == 1012

    run_with_client(scenario)


def test_rejected_handshake_and_concurrent_http() -> None:
    async def run() -> None:
        async with asyncio.timeout(PATIENCE), port(App()) as address:
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://{address}/no")
            assert (refused.value.response.status_code, refused.value.response.body) == (401, b"no")
            host, _, number = address.partition(":")
            reader, writer = await asyncio.open_connection(host, int(number))
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"ok")
            writer.close()
            await writer.wait_closed()

    asyncio.run(run())
