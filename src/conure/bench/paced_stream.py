"""One client of a server: speaks at the pace of a person, and notes when it heard what.

It is as lean as it can be, for hundreds of them share a core with one another.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from conure.background import start_task
from conure.bench.sample_speech import RATE
from conure.client import protocol

__all__ = ["PacedStreamSettings", "Notes", "PacedStream"]

SAMPLE = 2
"""Bytes."""
PATIENCE = 120.0
"""Seconds without an answer after which there will be none."""

_from_json = msgspec.json.Decoder(protocol.FromServer)
_to_json = msgspec.json.Encoder()


@dataclass(frozen=True)
class PacedStreamSettings:
    """What kind of streams."""

    url: str
    """Of the native protocol: ws://host:port/v1/stream."""
    latency_ms: int
    model: str | None = None
    packet_ms: int = 20
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def packet(self) -> int:
        """Samples."""
        return RATE * self.packet_ms // 1000


@dataclass
class Notes:
    """What one client heard, and when, in seconds."""

    words: list[str] = field(default_factory=list)
    """Of all finals."""
    lags: list[float] = field(default_factory=list)
    """Of partials that cover more than those before: since the last sample they cover was sent."""
    guesses: int = 0
    """Partials that cover no more than was covered before."""
    told_lags: list[float] = field(default_factory=list)
    """What the server says of itself, once a second."""
    first_words: list[float] = field(default_factory=list)
    """Since the sample was sent at which an utterance began."""
    final: float | None = None
    """From "that was all" to the marker behind its last final."""
    late: float = 0.0
    """How far behind its pace this client was, at most: more than a little says that its own machine was busy."""
    sent: float = 0.0
    """Audio."""
    end: str = ""
    """finished, cancelled, or what went wrong; nothing while it goes on."""

    @property
    def is_whole(self) -> bool:
        return self.end == "finished"


class PacedStream:
    def __init__(self, asked: PacedStreamSettings, pcm: bytes) -> None:
        """`pcm` as PCM16 at 16 kHz; a part of a packet at its end is a packet, too."""
        self.notes = Notes()
        self.model = ""
        """What the server said it is."""
        self._asked = asked
        self._pcm = pcm
        self._sent_at: list[float] = []
        """By packet."""
        self._seq = 0
        self._token = ""
        self._until = 0.0
        self._speech: float | None = None
        self._finalized = 0.0
        self._ready, self._marked = asyncio.Event(), asyncio.Event()

    @property
    def packets(self) -> int:
        """All there are."""
        return math.ceil(len(self._pcm) / (SAMPLE * self._asked.packet))

    async def open(self) -> None:
        """Returns when the server has it, or has said why not. Raises OSError where there is no server."""
        asked = self._asked
        await self._connect(protocol.Config(model=asked.model, latency_ms=asked.latency_ms, lag=True, words=False))

    async def speak(self, begin: float, until: int | None = None) -> None:
        """Sends what was not sent, each packet when its last sample is spoken by one who began at that time."""
        packets, seconds = self.packets if until is None else until, self._asked.packet_ms / 1000
        for number in range(len(self._sent_at), packets):
            due = begin + (number + 1) * seconds
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if self.notes.end:
                return
            self._sent_at.append(time.monotonic())
            self.notes.late = max(self.notes.late, self._sent_at[-1] - due)
            await self._send(self._packet(number))

    async def hurry(self) -> None:
        """Sends everything as fast as the server takes it."""
        for number in range(len(self._sent_at), self.packets):
            if self.notes.end:
                return
            self._sent_at.append(time.monotonic())
            await self._send(self._packet(number))

    async def finish(self) -> Notes:
        """That was all: waits for the last final, then for the end."""
        self._finalized = time.monotonic()
        await self._say(protocol.Finalize(id=1))
        await self._wait(self._marked)
        await self._say(protocol.Close())
        await self._hang_up()
        return self.notes

    async def cancel(self) -> Notes:
        await self._say(protocol.Cancel())
        await self._hang_up()
        return self.notes

    async def drop(self) -> None:
        """The connection breaks."""
        self._socket.transport.abort()
        await self._reading

    async def resume(self) -> None:
        """Comes back after `drop`, and goes on after what the server has."""
        self.notes.end = ""
        await self._connect(protocol.Resume(token=self._token, seq=self._seq))

    async def _connect(self, first: protocol.Config | protocol.Resume) -> None:
        self._ready.clear()
        asked = self._asked
        self._socket: ClientConnection = await connect(
            asked.url, additional_headers=asked.headers, compression=None, ping_interval=None
        )
        await self._say(first)
        self._reading = start_task(self._read(), "reading what a stream hears")
        await self._wait(self._ready)

    async def _hang_up(self) -> None:
        try:
            await asyncio.wait_for(self._reading, PATIENCE)
        except TimeoutError:
            self._end(f"no end within {PATIENCE:g} s")
        await self._socket.close()

    async def _wait(self, event: asyncio.Event) -> None:
        try:
            await asyncio.wait_for(event.wait(), PATIENCE)
        except TimeoutError:
            self._end(f"no answer within {PATIENCE:g} s")

    def _packet(self, number: int) -> bytes:
        size = SAMPLE * self._asked.packet
        data = self._pcm[number * size : (number + 1) * size]
        self.notes.sent += len(data) / SAMPLE / RATE
        return data

    async def _say(self, message: protocol.FromClient) -> None:
        await self._send(_to_json.encode(message).decode())

    async def _send(self, data: bytes | str) -> None:
        try:
            await self._socket.send(data)
        except ConnectionClosed:
            self._end("the connection was closed")

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                self._take(_from_json.decode(message), time.monotonic())
        except ConnectionClosed:
            pass
        self._end("the connection was closed")

    def _end(self, how: str) -> None:
        self.notes.end = self.notes.end or how
        self._ready.set()
        self._marked.set()

    def _take(self, message: protocol.FromServer, now: float) -> None:
        self._seq = getattr(message, "seq", self._seq)
        match message:
            case protocol.Partial(stable=stable, tail=tail, until=until):
                self._measure(until, now)
                self._see_words(stable + tail, now)
            case protocol.Final(text=text):
                self.notes.words += text.split()
                self._see_words(text, now)
            case protocol.UtteranceEnd(at=at) if at == self._until and self.notes.lags:
                self.notes.lags.pop()  # its turn has heard more than this partial covers
            case protocol.Lag(seconds=seconds):
                self.notes.told_lags.append(seconds)
            case protocol.SpeechStarted(at=at):
                self._speech = at
            case protocol.Marker():
                self.notes.final = now - self._finalized
                self._marked.set()
            case _:
                self._take_fate(message)

    def _take_fate(self, message: protocol.FromServer) -> None:
        match message:
            case protocol.Ready():
                self._begin(message)
            case protocol.Finished() | protocol.Cancelled():
                self._end(type(message).__name__.lower())
            case protocol.Failed() | protocol.Error():
                self._end(f"{message.code}: {message.message}")

    def _begin(self, ready: protocol.Ready) -> None:
        self._token, self.model = ready.token, ready.model
        packets = ready.received // (SAMPLE * self._asked.packet)
        del self._sent_at[packets:]
        self.notes.sent = ready.received / SAMPLE / RATE
        self._ready.set()

    def _measure(self, until: float, now: float) -> None:
        if until <= self._until:
            self.notes.guesses += 1
            return
        self._until = until
        self.notes.lags.append(now - self._spoken_at(until))

    def _see_words(self, text: str, now: float) -> None:
        if self._speech is not None and text:
            self.notes.first_words.append(now - self._spoken_at(self._speech))
            self._speech = None

    def _spoken_at(self, seconds: float) -> float:
        """When the last sample before that place of the stream was sent."""
        packet = math.ceil(round(seconds * RATE) / self._asked.packet) - 1
        return self._sent_at[min(max(packet, 0), len(self._sent_at) - 1)]
