"""The streams of one connection, one at a time: new session settings may require another stream."""

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
    """A request for a final of all audio before it."""

    kind: Kind
    at: float
    """Position in the stream, in seconds."""


class Streams:
    """One task opens, feeds and closes streams; another task reads their events."""

    def __init__(self, live: LiveService, caller: Caller) -> None:
        self._live, self._caller = live, caller
        self._stream: LiveStream | None = None
        self._reader = 0
        self._finalize_count = 0
        self._pending: dict[int, Kind] = {}
        self._opened: asyncio.Queue[LiveStream] = asyncio.Queue(1)
        self.is_discarded = False
        """Whether the client discarded the open stream."""
        self._all_answered, self._all_consumed = asyncio.Event(), asyncio.Event()
        """Set when no finalize request is pending; set when all events of the stream were consumed."""

    @property
    def is_open(self) -> bool:
        return self._stream is not None

    @property
    def seconds(self) -> float:
        """Length of the audio in the stream."""
        return self._stream.session.seconds if self._stream else 0.0

    @property
    def tokenizer(self) -> Tokenizer:
        assert self._stream
        return self._stream.options.tokenizer

    async def open(self, request: StreamRequest, audio: AudioFormat) -> None:
        """Raises ConureError."""
        self._stream = await self._live.open_stream(request, audio, self._caller)
        self._reader = self._live.attach(self._stream)
        self.is_discarded = False
        self._all_consumed.clear()
        self._all_answered.set()
        self._opened.put_nowait(self._stream)

    async def push_audio(self, data: bytes) -> None:
        assert self._stream
        await self._stream.push_audio(data, self._reader)

    async def configure(self, endpointing: Endpointing) -> None:
        """Changes the endpointing of audio from now on."""
        if self._stream:
            await self._stream.configure(endpointing)

    async def finalize(self, kind: Kind) -> None:
        assert self._stream
        self._finalize_count += 1
        self._pending[self._finalize_count] = kind
        self._all_answered.clear()
        await self._stream.finalize(self._finalize_count, self._reader)

    def resolve(self, marker: Marker) -> FinalizeRequest:
        """Returns the pending request that the marker answers."""
        return FinalizeRequest(self._pending.pop(marker.number), marker.at)

    async def finish(self) -> None:
        """Closes the stream and waits until all of its events were consumed."""
        if self._stream:
            await self._stream.close(self._reader)
            await self._all_consumed.wait()

    async def discard(self) -> None:
        """Waits for pending finals, then cancels the stream and drops its later events."""
        if self._stream:
            await self._all_answered.wait()
            self.is_discarded = True
            self._stream.cancel()
            await self._all_consumed.wait()

    def disconnect(self, failure: Failed | None = None) -> None:
        """Discards the stream when the connection is gone."""
        if self._stream:
            if failure:
                self._stream.session.stop(failure)
            self._live.discard(self._stream)
            self._stream = None

    async def events(self) -> AsyncIterator[Event]:
        """Yields the events of all streams, without end. A stream follows after the previous terminal event."""
        while True:
            stream = await self._opened.get()
            async for event in stream.events(self._reader):
                is_last = isinstance(event, TERMINAL_EVENTS)
                if is_last or not self.is_discarded:
                    yield event
                if is_last or not self._pending:
                    self._all_answered.set()
            self._pending.clear()
            self.disconnect()
            self._all_consumed.set()
