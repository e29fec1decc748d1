"""How long a connection may take for each of its parts, with the seconds made short; and a port without descriptors."""

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
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (http_requests, stream_port):
        monkeypatch.setattr(module, "HEAD_SECONDS", SHORT)
    monkeypatch.setattr(http_requests, "BODY_SECONDS", SHORT)
    monkeypatch.setattr(direct_socket, "FIRST_MESSAGE_SECONDS", SHORT)
    monkeypatch.setattr(connections, "FLUSH_SECONDS", SHORT)
    monkeypatch.setattr(connections, "CHECK_SECONDS", 0.02)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads all, and says how much that was."""
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
async def listening(room: Capacity | None = None) -> AsyncIterator[tuple[Acceptor, ConnectionLimits]]:
    config = uvicorn.Config(app, http=LimitedHttpProtocol, ws=DirectWebSocket, lifespan="off", log_config=None)
    config.load()
    state, held = uvicorn.Server(config).server_state, ConnectionLimits(room)
    port = Port("web", held, b"full")

    def speak(connection: Connection) -> LimitedHttpProtocol:
        return LimitedHttpProtocol(config, state, {}, connection=connection)

    async with Acceptor(open_listeners("127.0.0.1", 0, shared=False), port, speak) as server:
        yield server, held
        async with asyncio.timeout(PATIENCE):
            while len(held):  # every connection is told of when it has gone
                await asyncio.sleep(0.01)
        held.close()


def talked(talk: Talk, room: Capacity | None = None) -> Any:
    async def run() -> Any:
        async with listening(room) as (server, _), asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            try:
                return await talk(reader, writer)
            finally:
                writer.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", b""),  # browsers open connections that they do not need
        (b"GET / HTTP/1.1\r\nHost:", b"HTTP/1.1 408"),
        (HEAD, b"HTTP/1.1 408"),
        (HEAD + b"x" * 10, b"HTTP/1.1 408"),
    ],
)
def test_what_does_not_come_is_not_waited_for(said: bytes, told: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(said)
        return await reader.read()

    heard = talked(talk)
    assert heard.startswith(told)
    assert bool(heard) == bool(told)


def test_time_in_which_the_process_was_stopped_makes_nobody_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a machine that was suspended finds it: the clock has gone on, and nobody could say anything."""
    passed = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    monkeypatch.setattr(connections, "time", clock)
    monkeypatch.setattr(http_requests, "HEAD_SECONDS", 2 * PATIENCE)

    async def run() -> bytes:
        async with listening() as (server, held), asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.1\r\n")
            while not any(one._deadline < float("inf") for one in held._open):
                await asyncio.sleep(0)
            passed[0] = 3 * PATIENCE
            due = held._check_due
            while held._check_due == due:
                await asyncio.sleep(0.01)
            writer.write(b"Host: x\r\nConnection: close\r\n\r\n")
            told = await reader.read()
            writer.close()
            return told

    assert asyncio.run(run()).startswith(b"HTTP/1.1 200")


def test_a_head_that_comes_byte_by_byte_is_late() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        reading = asyncio.create_task(reader.read())
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        while not reading.done():
            writer.write(b"x")
            await asyncio.sleep(SHORT / 10)
        return await reading

    assert talked(talk).startswith(b"HTTP/1.1 408")


def test_a_slow_body_may_take_as_long_as_it_likes() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(HEAD)
        until = time.monotonic() + 5 * SHORT
        sent = 0
        while time.monotonic() < until:
            writer.write(b"x" * 20)
            sent += 20
            await asyncio.sleep(SHORT / 10)
        writer.write(b"x" * (2000 - sent))
        return (await reader.readuntil(b"\r\n\r\n")) + await reader.readexactly(4)

    assert talked(talk).endswith(b"2000")


def test_a_web_socket_over_which_nothing_is_said() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(upgrade("/"))
        return await reader.read()

    heard = talked(talk).partition(b"\r\n\r\n")[2]
    assert heard[0] == 0x88
    assert b"idle: no messages" in heard


def test_who_does_not_read_the_last_word_is_dropped() -> None:
    """`listening` waits until nothing is left."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"\0\r\n\r\n")
        await asyncio.sleep(2 * SHORT)
        return b""

    assert talked(talk) == b""


def test_the_newest_has_the_better_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_requests, "BODY_SECONDS", PATIENCE)

    async def run() -> list[bytes]:
        async with listening(Capacity(total=4, unidentified=2)) as (server, held), asyncio.timeout(PATIENCE):
            known = await asyncio.open_connection("127.0.0.1", server.port)
            known[1].write(HEAD)
            while not any(one.is_identified for one in held._open):
                await asyncio.sleep(0.01)
            crowd = []
            for _ in range(6):
                crowd.append(await asyncio.open_connection("127.0.0.1", server.port))
                crowd[-1][1].write(b"GET / HTTP/1.1\r\n")
                await asyncio.sleep(0.01)
            heard = [await reader.read() for reader, _ in crowd]
            known[1].write(b"x" * 2000)
            heard.append(await known[0].readuntil(b"2000"))
            for _, writer in (known, *crowd):
                writer.close()
            return heard

    *crowd, known = asyncio.run(run())
    assert all(heard.startswith(b"HTTP/1.1 503") for heard in crowd[:4])
    assert all(heard.startswith(b"HTTP/1.1 408") for heard in crowd[4:])
    assert known.startswith(b"HTTP/1.1 200")


def test_where_all_are_at_work_a_new_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_requests, "BODY_SECONDS", PATIENCE)

    async def run() -> bytes:
        async with listening(Capacity(total=2, unidentified=1)) as (server, held), asyncio.timeout(PATIENCE):
            busy = []
            for number in range(2):
                busy.append(await asyncio.open_connection("127.0.0.1", server.port))
                busy[-1][1].write(HEAD)
                while sum(one.is_identified for one in held._open) <= number:
                    await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            told = await reader.read()
            for _, one in (*busy, (reader, writer)):
                one.close()
            return told

    assert asyncio.run(run()) == b"full"


def test_a_port_goes_on_when_there_are_descriptors_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_SECONDS", 0.02)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def run() -> bytes:
        async with listening() as (server, _), asyncio.timeout(PATIENCE):
            client = socket.socket()
            client.setblocking(False)
            resource.setrlimit(resource.RLIMIT_NOFILE, (_lowest_free(), hard))
            try:
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", server.port))
                await asyncio.sleep(0.1)  # it is tried meanwhile, and cannot be accepted
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            reader, writer = await asyncio.open_connection(sock=client)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            told = await reader.read()
            writer.close()
            return told

    assert asyncio.run(run()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("most", [None, 2, 10, 10**6])
def test_grpc_has_room_left_to_tell_that_there_is_none(most: int | None) -> None:
    room = Capacity.from_descriptor_limit(most)
    assert 1 <= room.grpc < room.grpc_accepted
    assert room.grpc <= (most or room.grpc)


def _lowest_free() -> int:
    """The number that the next descriptor would get."""
    with socket.socket() as found:
        return found.fileno()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection) -> None:
    while line := await reader.readline():
        connection.mark_message_received()
        writer.write(line)
    writer.close()


@pytest.mark.parametrize(
    ("said", "told"),
    [(b"\x16\x03\x01", b"E connect without TLS"), (b"PRI * HTTP/2.0", b"E connect without"), (b"half", b"E identify")],
)
def test_lines(said: bytes, told: bytes) -> None:
    async def run() -> bytes:
        held = ConnectionLimits()
        port = TcpPort("tcp", lambda message, hint: f"E {hint}".encode())
        async with await serve_tcp_port(port, held, echo, "127.0.0.1", 0) as server, asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(said)
            heard = await reader.read()
            writer.close()
            while len(held):
                await asyncio.sleep(0.01)
            held.close()
            return heard

    assert asyncio.run(run()).startswith(told)
