"""Timeouts of each phase of a connection, with short durations, and a port without free descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from bench.visits import upgrade
from conure.protocols import tcp_port as stream_port
from conure.protocols.http import acceptor
from conure.protocols.http import connection_limits as connections
from conure.protocols.http import uvicorn_http as http_requests
from conure.protocols.http import uvicorn_websocket as direct_socket
from conure.protocols.http.acceptor import Acceptor, Port
from conure.protocols.http.connection_limits import Capacity, Connection, ConnectionLimits
from conure.protocols.http.identification import CONNECTION
from conure.protocols.http.uvicorn_http import LimitedHttpProtocol
from conure.protocols.http.uvicorn_websocket import DirectWebSocket
from conure.protocols.tcp_port import TcpPort, serve_tcp_port
from conure.service.shared_ports import open_listeners

SHORT = 0.2
PATIENCE = 60.0
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n"
ClientScript = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (http_requests, stream_port):
        monkeypatch.setattr(module, "HEAD_SECONDS", SHORT)
    monkeypatch.setattr(http_requests, "BODY_SECONDS", SHORT)
    monkeypatch.setattr(direct_socket, "FIRST_MESSAGE_SECONDS", SHORT)
    monkeypatch.setattr(connections, "FLUSH_SECONDS", SHORT)
    monkeypatch.setattr(connections, "CHECK_SECONDS", 0.02)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and responds with its size."""
    scope["state"][CONNECTION].mark_message_received()
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"%4d" % size})


@contextlib.asynccontextmanager
async def serving(capacity: Capacity | None = None) -> AsyncIterator[tuple[Acceptor, ConnectionLimits]]:
    config = uvicorn.Config(app, http=LimitedHttpProtocol, ws=DirectWebSocket, lifespan="off", log_config=None)
    config.load()
    state, limits = uvicorn.Server(config).server_state, ConnectionLimits(capacity)
    port = Port("web", limits, b"full")

    def create_protocol(connection: Connection) -> LimitedHttpProtocol:
        return LimitedHttpProtocol(config, state, {}, connection=connection)

    async with Acceptor(open_listeners("127.0.0.1", 0, shared=False), port, create_protocol) as server:
        yield server, limits
        async with asyncio.timeout(PATIENCE):
            while len(limits):  # every closed connection is removed
                await asyncio.sleep(0.01)
        limits.close()


def run_client(client: ClientScript, capacity: Capacity | None = None) -> Any:
    async def run() -> Any:
        async with serving(capacity) as (server, _), asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            try:
                return await client(reader, writer)
            finally:
                writer.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"", b""),  # browsers open connections that they do not need
        (b"GET / HTTP/1.1\r\nHost:", b"HTTP/1.1 408"),
        (HEAD, b"HTTP/1.1 408"),
        (HEAD + b"x" * 10, b"HTTP/1.1 408"),
    ],
)
def test_missing_bytes_time_out(sent: bytes, message: bytes) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(sent)
        return await reader.read()

    received = run_client(client)
    assert received.startswith(message)
    assert bool(received) == bool(message)


def test_suspended_process_extends_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Like a suspended machine: the clock advances while clients could not send."""
    passed = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    monkeypatch.setattr(connections, "time", clock)
    monkeypatch.setattr(http_requests, "HEAD_SECONDS", 2 * PATIENCE)

    async def run() -> bytes:
        async with serving() as (server, limits), asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.1\r\n")
            while not any(one._deadline < float("inf") for one in limits._open):
                await asyncio.sleep(0)
            passed[0] = 3 * PATIENCE
            due = limits._check_due
            while limits._check_due == due:
                await asyncio.sleep(0.01)
            writer.write(b"Host: x\r\nConnection: close\r\n\r\n")
            response = await reader.read()
            writer.close()
            return response

    assert asyncio.run(run()).startswith(b"HTTP/1.1 200")


def test_head_sent_byte_by_byte_times_out() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        reading = asyncio.create_task(reader.read())
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        while not reading.done():
            writer.write(b"x")
            await asyncio.sleep(SHORT / 10)
        return await reading

    assert run_client(client).startswith(b"HTTP/1.1 408")


def test_slow_body_is_accepted() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(HEAD)
        until = time.monotonic() + 5 * SHORT
        sent = 0
        while time.monotonic() < until:
            writer.write(b"x" * 20)
            sent += 20
            await asyncio.sleep(SHORT / 10)
        writer.write(b"x" * (2000 - sent))
        return (await reader.readuntil(b"\r\n\r\n")) + await reader.readexactly(4)

    assert run_client(client).endswith(b"2000")


def test_idle_websocket_is_closed() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(upgrade("/"))
        return await reader.read()

    received = run_client(client).partition(b"\r\n\r\n")[2]
    assert received[0] == 0x88
    assert b"idle: no messages" in received


def test_client_that_does_not_read_is_disconnected() -> None:
    """`serving` waits until no connection is left."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"\0\r\n\r\n")
        await asyncio.sleep(2 * SHORT)
        return b""

    assert run_client(client) == b""


def test_oldest_unidentified_connection_is_closed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_requests, "BODY_SECONDS", PATIENCE)

    async def run() -> list[bytes]:
        async with serving(Capacity(total=4, unidentified=2)) as (server, limits), asyncio.timeout(PATIENCE):
            known = await asyncio.open_connection("127.0.0.1", server.port)
            known[1].write(HEAD)
            while not any(one.is_identified for one in limits._open):
                await asyncio.sleep(0.01)
            crowd = []
            for _ in range(6):
                crowd.append(await asyncio.open_connection("127.0.0.1", server.port))
                crowd[-1][1].write(b"GET / HTTP/1.1\r\n")
                await asyncio.sleep(0.01)
            received = [await reader.read() for reader, _ in crowd]
            known[1].write(b"x" * 2000)
            received.append(await known[0].readuntil(b"2000"))
            for _, writer in (known, *crowd):
                writer.close()
            return received

    *crowd, known = asyncio.run(run())
    assert all(received.startswith(b"HTTP/1.1 503") for received in crowd[:4])
    assert all(received.startswith(b"HTTP/1.1 408") for received in crowd[4:])
    assert known.startswith(b"HTTP/1.1 200")


def test_new_connection_is_refused_while_all_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_requests, "BODY_SECONDS", PATIENCE)

    async def run() -> bytes:
        async with serving(Capacity(total=2, unidentified=1)) as (server, limits), asyncio.timeout(PATIENCE):
            busy = []
            for number in range(2):
                busy.append(await asyncio.open_connection("127.0.0.1", server.port))
                busy[-1][1].write(HEAD)
                while sum(one.is_identified for one in limits._open) <= number:
                    await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            response = await reader.read()
            for _, one in (*busy, (reader, writer)):
                one.close()
            return response

    assert asyncio.run(run()) == b"full"


def test_port_recovers_from_missing_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_SECONDS", 0.02)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def run() -> bytes:
        async with serving() as (server, _), asyncio.timeout(PATIENCE):
            client = socket.socket()
            client.setblocking(False)
            resource.setrlimit(resource.RLIMIT_NOFILE, (_next_descriptor(), hard))
            try:
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", server.port))
                await asyncio.sleep(0.1)  # the port tries to accept the connection meanwhile, and fails
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            reader, writer = await asyncio.open_connection(sock=client)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            response = await reader.read()
            writer.close()
            return response

    assert asyncio.run(run()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("most", [None, 2, 10, 10**6])
def test_grpc_accepts_more_connections_than_it_serves(most: int | None) -> None:
    capacity = Capacity.from_descriptor_limit(most)
    assert 1 <= capacity.grpc < capacity.grpc_accepted
    assert capacity.grpc <= (most or capacity.grpc)


def _next_descriptor() -> int:
    """Number of the next free descriptor."""
    with socket.socket() as result:
        return result.fileno()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection) -> None:
    while line := await reader.readline():
        connection.mark_message_received()
        writer.write(line)
    writer.close()


@pytest.mark.parametrize(
    ("sent", "response"),
    [(b"\x16\x03\x01", b"E connect without TLS"), (b"PRI * HTTP/2.0", b"E connect without"), (b"half", b"E identify")],
)
def test_line_port_rejects_other_protocols(sent: bytes, response: bytes) -> None:
    async def run() -> bytes:
        limits = ConnectionLimits()
        port = TcpPort("tcp", lambda message, hint: f"E {hint}".encode())
        async with await serve_tcp_port(port, limits, echo, "127.0.0.1", 0) as server, asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(sent)
            received = await reader.read()
            writer.close()
            while len(limits):
                await asyncio.sleep(0.01)
            limits.close()
            return received

    assert asyncio.run(run()).startswith(response)
