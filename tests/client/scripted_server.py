"""A small server of the native protocol that aborts its connections where a script says so.

It recognizes words: every WORD bytes of audio are one, sent in a partial. So the text of all finals shows which audio
arrived, how often and in what order.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response

from conure.client.protocol import (
    Audio,
    Cancel,
    Cancelled,
    Close,
    Config,
    Final,
    Finalize,
    Finished,
    FromClient,
    FromServer,
    Hello,
    Marker,
    Partial,
    Ready,
    Received,
    Resume,
)

WORD = 64
"""Bytes per word."""


@dataclass(frozen=True)
class Cut:
    """Aborts a connection: before message `number` is read, after it was read (and not yet answered), or after `number`
    messages were sent."""

    when: str
    number: int


@dataclass
class FakeStream:
    """A stream of the server. It survives its connections."""

    token: str
    config: Config = field(default_factory=Config)
    hello: Hello = field(default_factory=Hello)
    audio: bytearray = field(default_factory=bytearray)
    events: list[Any] = field(default_factory=list)
    requests: list[FromClient] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    words: list[str] = field(default_factory=list)
    finalized_words: int = 0
    """Number of words in finals."""

    def add_event(self, kind: type, **fields: Any) -> None:
        self.events.append(kind(seq=len(self.events) + 1, **fields))
        self.changed.set()

    def append_audio(self, data: bytes) -> None:
        self.audio += data
        for start in range(len(self.words) * WORD, len(self.audio) - WORD + 1, WORD):
            self.words.append(self.audio[start : start + 4].hex())
            self.add_event(Partial, utterance=0, stable="", tail=self.words[-1], until=(start + WORD) / 32000)

    def add_final(self, reason: str) -> None:
        if words := self.words[self.finalized_words :]:
            times = {"start": self.finalized_words * WORD / 32000, "end": len(self.words) * WORD / 32000}
            self.finalized_words += len(words)
            self.add_event(Final, utterance=0, text=" ".join(words), reason=reason, model="fake", **times)

    def handle_request(self, message: FromClient) -> None:
        self.requests.append(message)
        if isinstance(message, Finalize):
            self.add_final("asked")
            self.add_event(Marker, id=message.id)
        elif isinstance(message, Close):
            self.add_final("closed")
            self.add_event(Finished, seconds=len(self.audio) / 32000)
        elif isinstance(message, Cancel):
            self.add_event(Cancelled)


@dataclass
class Script:
    """Behaviour of the server."""

    cuts: list[Cut] = field(default_factory=list)
    """One for each connection; later connections are not aborted."""
    resume_seconds: float = 20.0
    acknowledge: int = 4
    """`received` is sent after every so many messages; 0 means never."""
    first: FromServer | bytes | None = None
    """Sent instead of `ready`, before closing."""
    later: FromServer | bytes | None = None
    """Sent after each audio message."""
    refuse_resume: FromServer | None = None
    lost_bytes: int = 0
    """Bytes of audio that the server loses with a connection."""
    status: int | None = None
    body: bytes = b""
    """HTTP response instead of a WebSocket."""


class FakeServer:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.cuts = iter(script.cuts)
        self.streams: dict[str, FakeStream] = {}
        self.connections = 0
        self.refused = 0
        self.url = ""

    @property
    def heard(self) -> FakeStream:
        """The only stream."""
        [stream] = self.streams.values()
        return stream

    async def serve_connection(self, socket: ServerConnection) -> None:
        self.connections += 1
        assert socket.request is not None
        codec: Any = msgspec.msgpack if "msgpack" in socket.request.path else msgspec.json
        scenario = _FakeConnection(self, socket, codec, next(self.cuts, None))
        with suppress(ConnectionClosed, _ConnectionCut):
            await scenario.run()

    def reject_handshake(self, connection: ServerConnection, request: object) -> Response | None:
        if self.script.status is None:
            return None
        self.refused += 1
        return connection.respond(self.script.status, self.script.body.decode())


class _ConnectionCut(Exception):
    pass


class _FakeConnection:
    def __init__(self, server: FakeServer, socket: ServerConnection, codec: Any, cut: Cut | None) -> None:
        self.server = server
        self.script = server.script
        self.socket = socket
        self.codec = codec
        self.cut = cut
        self.read = self.sent = 0

    async def run(self) -> None:
        first = await self.receive()
        if self.script.first is not None:
            await self.send_message(self.script.first)
            return
        if isinstance(first, Resume):
            if self.script.refuse_resume is not None:
                await self.send_message(self.script.refuse_resume)
                return
            stream, sent_events = self.server.streams[first.token], first.seq
            if self.script.lost_bytes:
                del stream.audio[-self.script.lost_bytes :]
        else:
            assert isinstance(first, Hello)
            config = await self.receive()
            assert isinstance(config, Config)
            stream, sent_events = FakeStream(f"token {len(self.server.streams)}", config, first), 0
            self.server.streams[stream.token] = stream
        await self.send_message(
            Ready(
                stream_id=1,
                token=stream.token,
                resume_seconds=self.script.resume_seconds,
                model=stream.config.model or "fake",
                latency_ms=80,
                received=len(stream.audio),
            )
        )
        sending = asyncio.create_task(self.send_events(stream, sent_events))
        try:
            await self.receive_all(stream)
        finally:
            sending.cancel()
            await asyncio.wait([sending])

    async def receive_all(self, stream: FakeStream) -> None:
        while True:
            message = await self.receive()
            if isinstance(message, bytes | Audio):
                stream.append_audio(message if isinstance(message, bytes) else message.data)
                if self.script.later is not None:
                    await self.send_message(self.script.later)
            else:
                stream.handle_request(message)
            self.cut_if_due("read", self.read)
            if self.script.acknowledge and self.read % self.script.acknowledge == 0:
                await self.send_message(Received(received=len(stream.audio)))

    async def send_events(self, stream: FakeStream, sent_events: int) -> None:
        with suppress(ConnectionClosed, _ConnectionCut):
            while True:
                while sent_events < len(stream.events):
                    sent_events += 1
                    await self.send_message(stream.events[sent_events - 1])
                stream.changed.clear()
                await stream.changed.wait()

    async def receive(self) -> FromClient | bytes:
        self.cut_if_due("before", self.read + 1)
        data = await self.socket.recv()
        self.read += 1
        if isinstance(data, bytes) and self.codec is msgspec.json:
            return data
        message: FromClient = self.codec.decode(data, type=FromClient)
        return message

    async def send_message(self, message: FromServer | bytes) -> None:
        data = message if isinstance(message, bytes) else self.codec.encode(message)
        await self.socket.send(data, text=self.codec is msgspec.json)
        self.sent += 1
        self.cut_if_due("sent", self.sent)

    def cut_if_due(self, when: str, number: int) -> None:
        if self.cut is not None and (self.cut.when, self.cut.number) == (when, number):
            self.socket.transport.abort()
            raise _ConnectionCut


@asynccontextmanager
async def serving(script: Script | None = None, port: int = 0) -> AsyncIterator[FakeServer]:
    fake = FakeServer(script or Script())
    server: Server
    async with serve(
        fake.serve_connection, "127.0.0.1", port, process_request=fake.reject_handshake, close_timeout=0.5
    ) as server:
        [(_, port)] = [socket.getsockname() for socket in server.sockets]
        fake.url = f"ws://127.0.0.1:{port}"
        yield fake


@contextmanager
def serving_in_a_thread() -> Iterator[Callable[[Script], FakeServer]]:
    """Yields a function that starts servers, for tests without asyncio."""
    stopping = threading.Event()
    started: list[FakeServer] = []

    async def run(script: Script, ready: threading.Event) -> None:
        async with serving(script) as server:
            started.append(server)
            ready.set()
            while not stopping.is_set():
                await asyncio.sleep(0.01)

    with ThreadPoolExecutor() as threads:

        def start(script: Script) -> FakeServer:
            ready = threading.Event()
            threads.submit(asyncio.run, run(script, ready))
            assert ready.wait(60)
            return started[-1]

        try:
            yield start
        finally:
            stopping.set()


def speech(words: int) -> bytes:
    """Audio of distinct words."""
    return b"".join(n.to_bytes(4, "big") * (WORD // 4) for n in range(words))


def in_packets(audio: bytes, size: int) -> Iterator[bytes]:
    return (audio[start : start + size] for start in range(0, len(audio), size))
