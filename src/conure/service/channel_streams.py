"""Several channels of one connection, each a stream of its own: one channel is one row of the batch.

    bytes ──> decoder ──┬─> samples of channel 0 ──> LiveStream ──┐
                        └─> samples of channel 1 ──> LiveStream ──┴─> (channel, event), as they come

A connection whose audio is not to be told apart has one stream, which takes the bytes as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Self

from conure.audio.formats import AudioFormat
from conure.background import start
from conure.engine.messages import Samples
from conure.errors import BadOption, UnsupportedAudio
from conure.service.access import ANYONE, Caller
from conure.service.events import Event, Failed
from conure.service.intake import Intake
from conure.service.live import LiveService, LiveStream, Wanted

__all__ = ["ChannelStreams"]

SAMPLES = AudioFormat("f32")
"""What each stream is fed with when the audio was decoded before."""


class ChannelStreams:
    """Belongs to one connection, which nobody comes back to. One call of `feed`, `finalize`, `close` at a time."""

    def __init__(self, live: LiveService, streams: Sequence[LiveStream], intake: Intake | None) -> None:
        """`intake`: tells the channels apart; None where there is one stream."""
        self.streams = tuple(streams)
        self.closing = False
        """No more audio is taken."""
        self._live = live
        self._intake = intake
        self._readers = [live.attach(stream) for stream in streams]

    @classmethod
    async def open(
        cls, live: LiveService, wanted: Wanted, audio: AudioFormat, caller: Caller = ANYONE, channels: int = 1
    ) -> Self:
        """All or none. `channels`: 1 for the mean of those that the audio has, or as many as it has for each.

        A container tells its own number: it is silent in those that it lacks, and those that it has more are left out.
        Raises what `LiveService.open` raises.
        """
        if audio.encoding == "container":
            audio = replace(audio, channels=channels)
        if channels not in (1, audio.channels):
            raise BadOption(f"{channels} channels are to be told apart", f"the audio has {audio.channels}")
        apart = channels > 1
        async with AsyncExitStack() as opened:
            streams = []
            for _ in range(channels):
                stream = await live.open(wanted, SAMPLES if apart else audio, caller)
                opened.callback(live.forget, stream)
                streams.append(stream)
            opened.pop_all()
        return cls(live, streams, Intake(audio, split=True) if apart else None)

    @property
    def seconds(self) -> float:
        """Audio received."""
        return max(stream.session.seconds for stream in self.streams)

    @property
    def problems(self) -> list[str]:
        """What of the audio could not be read."""
        return self._intake.problems if self._intake else self.streams[0].problems

    async def feed(self, data: bytes) -> None:
        """Audio in the connection's format, cut anywhere; waits where much of it is waiting.

        What came before audio that cannot be read is transcribed; then the streams fail.
        """
        if self.closing:
            return
        if self._intake is None:
            await self.streams[0].feed(data, self._readers[0])
            return
        try:
            samples = await self._intake.push(data)
        except UnsupportedAudio as error:
            self._spoil(error)
        else:
            await self._share(samples)

    def take(self, data: bytes) -> bool:
        """The same at once; False, and nothing was taken, where `feed` would wait, refuse, or tell channels apart."""
        return self._intake is None and not self.closing and self.streams[0].take(data, self._readers[0])

    async def finalize(self, marker: int) -> None:
        """That was all for now: each channel tells a Marker."""
        if self.closing:
            return
        if self._intake:
            await self._share(self._intake.flush())
        for stream, reader in zip(self.streams, self._readers, strict=True):
            await stream.finalize(marker, reader)

    async def close(self) -> None:
        """That was all; more than once does no harm."""
        if self.closing:
            return
        self.closing = True
        if self._intake:
            try:
                await self._share(await self._intake.finish())
            except UnsupportedAudio as error:
                self._spoil(error)
        for stream, reader in zip(self.streams, self._readers, strict=True):
            await stream.close(reader)

    def stop(self, event: Failed) -> None:
        """Ends all of them from this side."""
        for stream in self.streams:
            stream.session.stop(event)

    def cancel(self) -> None:
        """Nobody wants the rest; more than once does no harm."""
        self.closing = True
        if self._intake:
            self._intake.close()
        for stream in self.streams:
            self._live.forget(stream)

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """Of all channels, in the order in which they come; ends when all have ended."""
        if self._intake is None:
            async for event in self.streams[0].events(self._readers[0]):
                yield 0, event
            return
        pairs = zip(self.streams, self._readers, strict=True)
        told = [aiter(stream.events(reader)) for stream, reader in pairs]
        waiting = {start(_anext(events), "reading events of a channel"): channel for channel, events in enumerate(told)}
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for each in sorted(done, key=waiting.__getitem__):
                    channel = waiting.pop(each)
                    if (came := each.result()) is not None:
                        waiting[start(_anext(told[channel]), "reading events of a channel")] = channel
                        yield channel, came
        finally:
            for each in waiting:
                each.cancel()

    async def _share(self, samples: Samples) -> None:
        """samples [channels, n]."""
        if samples.size:
            for row, stream, reader in zip(samples, self.streams, self._readers, strict=True):
                await stream.feed(row.tobytes(), reader)

    def _spoil(self, error: UnsupportedAudio) -> None:
        self.closing = True
        for stream in self.streams:
            stream.spoil(error)


async def _anext(events: AsyncIterator[Event]) -> Event | None:
    """None after the last one."""
    return await anext(events, None)
