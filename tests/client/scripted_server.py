"""A small real server of the protocol, that cuts its connections where a script says so.

It hears words: every WORD bytes of audio are one, told in a partial. So the text of all finals says which audio came,
how often and in what order.
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
"""Bytes."""


@dataclass(frozen=True)
class Cut:
    """Ends a connection without a word: before message `number` is read, or after it was (and not yet answered), or
    after `number` messages were sent."""

    when: str
    number: int


@dataclass
class Heard:
    """A stream, as the server has it. It outlives its connections."""

    token: str
    config: Config = field(default_factory=Config)
    hello: Hello = field(default_factory=Hello)
    audio: bytearray = field(default_factory=bytearray)
    events: list[Any] = field(default_factory=list)
    requests: list[FromClient] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    words: list[str] = field(default_factory=list)
    told: int = 0
    """Words that are in finals."""

    def tell(self, kind: type, **fields: Any) -> None:
        self.events.append(kind(seq=len(self.events) + 1, **fields))
        self.news.set()

    def hear(self, data: bytes) -> None:
        self.audio += data
        for start in range(len(self.words) * WORD, len(self.audio) - WORD + 1, WORD):
            self.words.append(self.audio[start : start + 4].hex())
            self.tell(Partial, utterance=0, stable="", tail=self.words[-1], until=(start + WORD) / 32000)

    def settle(self, reason: str) -> None:
        if words := self.words[self.told :]:
            times = {"start": self.told * WORD / 32000, "end": len(self.words) * WORD / 32000}
            self.told += len(words)
            self.tell(Final, utterance=0, text=" ".join(words), reason=reason, model="fake", **times)

    def obey(self, message: FromClient) -> None:
        self.requests.append(message)
        if isinstance(message, Finalize):
            self.settle("asked")
            self.tell(Marker, id=message.id)
        elif isinstance(message, Close):
            self.settle("closed")
            self.tell(Finished, seconds=len(self.audio) / 32000)
        elif isinstance(message, Cancel):
            self.tell(Cancelled)


@dataclass
class Script:
    """How the server behaves."""

    cuts: list[Cut] = field(default_factory=list)
    """One for each connection, until there are no more."""
    resume_seconds: float = 20.0
    acknowledge: int = 4
    """Every so many messages `received` is told; 0 is never."""
    first: FromServer | bytes | None = None
    """Said instead of `ready`, before hanging up."""
    later: FromServer | bytes | None = None
    """Said once the first audio came."""
    refuse_resume: FromServer | None = None
    forget_after_break: int = 0
    """Bytes of audio that are lost with a connection."""
    status: int | None = None
    body: bytes = b""
    """Answered instead of a WebSocket."""


class FakeServer:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.cuts = iter(script.cuts)
        self.streams: dict[str, Heard] = {}
        self.connections = 0
        self.refused = 0
        self.url = ""

    @property
    def heard(self) -> Heard:
        [heard] = self.streams.values()
        return heard

    async def converse(self, socket: ServerConnection) -> None:
        self.connections += 1
        assert socket.request is not None
        codec: Any = msgspec.msgpack if "msgpack" in socket.request.path else msgspec.json
        talk = _Talk(self, socket, codec, next(self.cuts, None))
        with suppress(ConnectionClosed, _Cut):
            await talk.run()

    def refuse(self, connection: ServerConnection, request: object) -> Response | None:
        if self.script.status is None:
            return None
        self.refused += 1
        return connection.respond(self.script.status, self.script.body.decode())


class _Cut(Exception):
    pass


class _Talk:
    """One connection."""

    def __init__(self, server: FakeServer, socket: ServerConnection, codec: Any, cut: Cut | None) -> None:
        self.server = server
        self.script = server.script
        self.socket = socket
        self.codec = codec
        self.cut = cut
        self.read = self.sent = 0

    async def run(self) -> None:
        first = await self.next()
        if self.script.first is not None:
            await self.say(self.script.first)
            return
        if isinstance(first, Resume):
            if self.script.refuse_resume is not None:
                await self.say(self.script.refuse_resume)
                return
            heard, seen = self.server.streams[first.token], first.seq
            if self.script.forget_after_break:
                del heard.audio[-self.script.forget_after_break :]
        else:
            assert isinstance(first, Hello)
            config = await self.next()
            assert isinstance(config, Config)
            heard, seen = Heard(f"token {len(self.server.streams)}", config, first), 0
            self.server.streams[heard.token] = heard
        await self.say(
            Ready(
                stream_id=1,
                token=heard.token,
                resume_seconds=self.script.resume_seconds,
                model=heard.config.model or "fake",
                latency_ms=80,
                received=len(heard.audio),
            )
        )
        telling = asyncio.create_task(self.tell(heard, seen))
        try:
            await self.listen(heard)
        finally:
            telling.cancel()
            await asyncio.wait([telling])

    async def listen(self, heard: Heard) -> None:
        while True:
            message = await self.next()
            if isinstance(message, bytes | Audio):
                heard.hear(message if isinstance(message, bytes) else message.data)
                if self.script.later is not None:
                    await self.say(self.script.later)
            else:
                heard.obey(message)
            self.maybe_cut("read", self.read)
            if self.script.acknowledge and self.read % self.script.acknowledge == 0:
                await self.say(Received(received=len(heard.audio)))

    async def tell(self, heard: Heard, seen: int) -> None:
        with suppress(ConnectionClosed, _Cut):
            while True:
                while seen < len(heard.events):
                    seen += 1
                    await self.say(heard.events[seen - 1])
                heard.news.clear()
                await heard.news.wait()

    async def next(self) -> FromClient | bytes:
        self.maybe_cut("before", self.read + 1)
        data = await self.socket.recv()
        self.read += 1
        if isinstance(data, bytes) and self.codec is msgspec.json:
            return data
        message: FromClient = self.codec.decode(data, type=FromClient)
        return message

    async def say(self, message: FromServer | bytes) -> None:
        data = message if isinstance(message, bytes) else self.codec.encode(message)
        await self.socket.send(data, text=self.codec is msgspec.json)
        self.sent += 1
        self.maybe_cut("sent", self.sent)

    def maybe_cut(self, when: str, number: int) -> None:
        if self.cut is not None and (self.cut.when, self.cut.number) == (when, number):
            self.socket.transport.abort()
            raise _Cut


@asynccontextmanager
async def serving(script: Script | None = None, port: int = 0) -> AsyncIterator[FakeServer]:
    fake = FakeServer(script or Script())
    server: Server
    async with serve(fake.converse, "127.0.0.1", port, process_request=fake.refuse, close_timeout=0.5) as server:
        [(_, port)] = [socket.getsockname() for socket in server.sockets]
        fake.url = f"ws://127.0.0.1:{port}"
        yield fake


@contextmanager
def serving_in_a_thread() -> Iterator[Callable[[Script], FakeServer]]:
    """For tests without asyncio: a function that starts servers."""
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
    """Words that all differ."""
    return b"".join(n.to_bytes(4, "big") * (WORD // 4) for n in range(words))


def in_packets(audio: bytes, size: int) -> Iterator[bytes]:
    return (audio[start : start + size] for start in range(0, len(audio), size))
