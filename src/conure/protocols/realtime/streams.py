"""The streams of one connection, one after the other: who asks for something else mid-way gets another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from conure.audio.formats import AudioFormat
from conure.service.access import Caller
from conure.service.events import TERMINAL_EVENTS, Event, Failed, Marker
from conure.service.live_service import LiveService, LiveStream, StreamRequest
from conure.text.tokenizer import Tokenizer
from conure.vad.endpointing import Endpointing

__all__ = ["FinalizeRequest", "Streams"]


Kind = Literal["commit", "response", "turn"]


@dataclass(frozen=True)
class FinalizeRequest:
    """For all that was said before."""

    kind: Kind
    at: float
    """Seconds of the stream."""


class Streams:
    """One task opens, feeds and ends them; another follows their events."""

    def __init__(self, live: LiveService, caller: Caller) -> None:
        self._live, self._caller = live, caller
        self._stream: LiveStream | None = None
        self._reader = 0
        self._numbers = 0
        self._asked: dict[int, Kind] = {}
        self._opened: asyncio.Queue[LiveStream] = asyncio.Queue(1)
        self.is_dropped = False
        """The client wants no more of it."""
        self._answered, self._told = asyncio.Event(), asyncio.Event()
        """Nothing that was asked waits; all of the stream was told."""

    @property
    def is_open(self) -> bool:
        return self._stream is not None

    @property
    def seconds(self) -> float:
        """Audio in the stream."""
        return self._stream.session.seconds if self._stream else 0.0

    @property
    def tokenizer(self) -> Tokenizer:
        assert self._stream
        return self._stream.options.tokenizer

    async def open(self, wanted: StreamRequest, audio: AudioFormat) -> None:
        """Raises ConureError."""
        self._stream = await self._live.open_stream(wanted, audio, self._caller)
        self._reader = self._live.attach(self._stream)
        self.is_dropped = False
        self._told.clear()
        self._answered.set()
        self._opened.put_nowait(self._stream)

    async def feed(self, data: bytes) -> None:
        assert self._stream
        await self._stream.push_audio(data, self._reader)

    async def configure(self, endpointing: Endpointing) -> None:
        """For what comes from now on."""
        if self._stream:
            await self._stream.configure(endpointing)

    async def finalize(self, kind: Kind) -> None:
        assert self._stream
        self._numbers += 1
        self._asked[self._numbers] = kind
        self._answered.clear()
        await self._stream.finalize(self._numbers, self._reader)

    def answered(self, marker: Marker) -> FinalizeRequest:
        return FinalizeRequest(self._asked.pop(marker.number), marker.at)

    async def finish(self) -> None:
        """What was said is told to its end before anything else is heard."""
        if self._stream:
            await self._stream.close(self._reader)
            await self._told.wait()

    async def discard(self) -> None:
        """What was asked for is told; what came after it never is."""
        if self._stream:
            await self._answered.wait()
            self.is_dropped = True
            self._stream.cancel()
            await self._told.wait()

    def disconnect(self, why: Failed | None = None) -> None:
        """Nobody listens any more."""
        if self._stream:
            if why:
                self._stream.session.stop(why)
            self._live.discard(self._stream)
            self._stream = None

    async def events(self) -> AsyncIterator[Event]:
        """Of all streams, without end. The next is taken up when the last event of the one before was dealt with."""
        while True:
            stream = await self._opened.get()
            async for event in stream.events(self._reader):
                is_last = isinstance(event, TERMINAL_EVENTS)
                if is_last or not self.is_dropped:
                    yield event
                if is_last or not self._asked:
                    self._answered.set()
            self._asked.clear()
            self.disconnect()
            self._told.set()
