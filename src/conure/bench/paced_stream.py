"""One client of a server: sends audio in real time and records when its text arrives.

It does as little as possible per packet, because hundreds of clients share a core.
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
from conure.client import protocol
from conure.constants import SAMPLE_RATE

__all__ = ["PacedStreamSettings", "StreamResult", "PacedStream"]

SAMPLE_BYTES = 2
"""PCM16."""
TIMEOUT = 120.0
"""Seconds without a response after which the stream has failed."""

_from_json = msgspec.json.Decoder(protocol.FromServer)
_to_json = msgspec.json.Encoder()


@dataclass(frozen=True)
class PacedStreamSettings:
    """Parameters of a stream."""

    url: str
    """Native protocol: ws://host:port/v1/stream."""
    latency_ms: int
    model: str | None = None
    packet_ms: int = 20
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def packet(self) -> int:
        """Samples."""
        return SAMPLE_RATE * self.packet_ms // 1000


@dataclass
class StreamResult:
    """What one client received, and when. Times in seconds."""

    words: list[str] = field(default_factory=list)
    """Words of all finals."""
    lags: list[float] = field(default_factory=list)
    """For each partial that covers more audio than before: time since the last covered sample was sent."""
    unchanged_partials: int = 0
    """Number of partials that cover no more audio than before."""
    reported_lags: list[float] = field(default_factory=list)
    """Lags reported by the server, once per second."""
    first_words: list[float] = field(default_factory=list)
    """For each utterance: time from sending its first sample to its first words."""
    final: float | None = None
    """Time from the finalize to its marker, which follows the last final."""
    late: float = 0.0
    """Longest delay of a packet by this client; a large one means that the client's machine was busy."""
    sent: float = 0.0
    """Seconds of audio sent."""
    end: str = ""
    """How the stream ended: "finished", "cancelled" or an error; empty while it is open."""

    @property
    def is_whole(self) -> bool:
        return self.end == "finished"


class PacedStream:
    def __init__(self, settings: PacedStreamSettings, pcm: bytes) -> None:
        """`pcm` is PCM16 at 16 kHz; its last packet may be shorter."""
        self.result = StreamResult()
        self.model = ""
        """Name reported by the server."""
        self._settings = settings
        self._pcm = pcm
        self._sent_at: list[float] = []
        """Time of each packet."""
        self._seq = 0
        self._token = ""
        self._covered = 0.0
        self._speech_start: float | None = None
        self._finalized = 0.0
        self._ready, self._marker_received = asyncio.Event(), asyncio.Event()

    @property
    def packets(self) -> int:
        """Number of packets."""
        return math.ceil(len(self._pcm) / (SAMPLE_BYTES * self._settings.packet))

    async def open(self) -> None:
        """Returns when the server has accepted or rejected the stream. Raises OSError without a server."""
        settings = self._settings
        await self._connect(
            protocol.Config(model=settings.model, latency_ms=settings.latency_ms, lag=True, words=False)
        )

    async def send_paced(self, started_at: float, stop: int | None = None) -> None:
        """Sends the remaining packets (up to packet `stop`) in real time: each when its last sample would be spoken."""
        packets, seconds = self.packets if stop is None else stop, self._settings.packet_ms / 1000
        for number in range(len(self._sent_at), packets):
            due = started_at + (number + 1) * seconds
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if self.result.end:
                return
            self._sent_at.append(time.monotonic())
            self.result.late = max(self.result.late, self._sent_at[-1] - due)
            await self._send(self._packet(number))

    async def send_unpaced(self) -> None:
        """Sends the remaining packets as fast as the server accepts them."""
        for number in range(len(self._sent_at), self.packets):
            if self.result.end:
                return
            self._sent_at.append(time.monotonic())
            await self._send(self._packet(number))

    async def finish(self) -> StreamResult:
        """Finalizes and waits for the last final, then closes the stream and waits for its end."""
        self._finalized = time.monotonic()
        await self._send_message(protocol.Finalize(id=1))
        await self._wait(self._marker_received)
        await self._send_message(protocol.Close())
        await self._wait_until_closed()
        return self.result

    async def cancel(self) -> StreamResult:
        await self._send_message(protocol.Cancel())
        await self._wait_until_closed()
        return self.result

    async def disconnect(self) -> None:
        """Aborts the connection, as a network failure would."""
        self._socket.transport.abort()
        await self._reading

    async def resume(self) -> None:
        """Reconnects after `disconnect`, and continues after the audio that the server has."""
        self.result.end = ""
        await self._connect(protocol.Resume(token=self._token, seq=self._seq))

    async def _connect(self, first: protocol.Config | protocol.Resume) -> None:
        self._ready.clear()
        settings = self._settings
        self._socket: ClientConnection = await connect(
            settings.url, additional_headers=settings.headers, compression=None, ping_interval=None
        )
        await self._send_message(first)
        self._reading = start_task(self._read(), "reading events of a stream")
        await self._wait(self._ready)

    async def _wait_until_closed(self) -> None:
        try:
            await asyncio.wait_for(self._reading, TIMEOUT)
        except TimeoutError:
            self._end(f"no end within {TIMEOUT:g} s")
        await self._socket.close()

    async def _wait(self, event: asyncio.Event) -> None:
        try:
            await asyncio.wait_for(event.wait(), TIMEOUT)
        except TimeoutError:
            self._end(f"no response within {TIMEOUT:g} s")

    def _packet(self, number: int) -> bytes:
        size = SAMPLE_BYTES * self._settings.packet
        data = self._pcm[number * size : (number + 1) * size]
        self.result.sent += len(data) / SAMPLE_BYTES / SAMPLE_RATE
        return data

    async def _send_message(self, message: protocol.FromClient) -> None:
        await self._send(_to_json.encode(message).decode())

    async def _send(self, data: bytes | str) -> None:
        try:
            await self._socket.send(data)
        except ConnectionClosed:
            self._end("the connection was closed")

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                self._handle_event(_from_json.decode(message), time.monotonic())
        except ConnectionClosed:
            pass
        self._end("the connection was closed")

    def _end(self, reason: str) -> None:
        self.result.end = self.result.end or reason
        self._ready.set()
        self._marker_received.set()

    def _handle_event(self, message: protocol.FromServer, now: float) -> None:
        self._seq = getattr(message, "seq", self._seq)
        match message:
            case protocol.Partial(stable=stable, tail=tail, until=until):
                self._record_lag(until, now)
                self._record_first_words(stable + tail, now)
            case protocol.Final(text=text):
                self.result.words += text.split()
                self._record_first_words(text, now)
            case protocol.UtteranceEnd(at=at) if at == self._covered and self.result.lags:
                self.result.lags.pop()  # the step that ended the utterance decoded more audio than this partial covers
            case protocol.Lag(seconds=seconds):
                self.result.reported_lags.append(seconds)
            case protocol.SpeechStarted(at=at):
                self._speech_start = at
            case protocol.Marker():
                self.result.final = now - self._finalized
                self._marker_received.set()
            case _:
                self._handle_state(message)

    def _handle_state(self, message: protocol.FromServer) -> None:
        match message:
            case protocol.Ready():
                self._handle_ready(message)
            case protocol.Finished() | protocol.Cancelled():
                self._end(type(message).__name__.lower())
            case protocol.Failed() | protocol.Error():
                self._end(f"{message.code}: {message.message}")

    def _handle_ready(self, ready: protocol.Ready) -> None:
        self._token, self.model = ready.token, ready.model
        packets = ready.received // (SAMPLE_BYTES * self._settings.packet)
        del self._sent_at[packets:]
        self.result.sent = ready.received / SAMPLE_BYTES / SAMPLE_RATE
        self._ready.set()

    def _record_lag(self, until: float, now: float) -> None:
        if until <= self._covered:
            self.result.unchanged_partials += 1
            return
        self._covered = until
        self.result.lags.append(now - self._time_sent(until))

    def _record_first_words(self, text: str, now: float) -> None:
        if self._speech_start is not None and text:
            self.result.first_words.append(now - self._time_sent(self._speech_start))
            self._speech_start = None

    def _time_sent(self, seconds: float) -> float:
        """When the last sample before this position was sent."""
        packet = math.ceil(round(seconds * SAMPLE_RATE) / self._settings.packet) - 1
        return self._sent_at[min(max(packet, 0), len(self._sent_at) - 1)]
