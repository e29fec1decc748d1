"""Several channels of one connection, each a stream of its own: one channel is one row of the batch.

    bytes ──> decoder ──┬─> samples of channel 0 ──> LiveStream ──┐
                        └─> samples of channel 1 ──> LiveStream ──┴─> (channel, event), as they come

A connection whose audio is not to be told apart has one stream, which takes the bytes as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Self

from conure.audio.formats import AudioFormat
from conure.background import start_task
from conure.engine.messages import Samples
from conure.errors import BacklogFull, BadOption, UnsupportedAudio
from conure.service.access import ANONYMOUS, Caller
from conure.service.events import Event, Failed
from conure.service.live_service import LiveService, LiveStream, StreamRequest
from conure.service.request_queue import RequestQueue
from conure.service.session_options import LAG_INTERVAL
from conure.service.stream_decoder import StreamAudioDecoder
from conure.vad.endpointing import Endpointing

__all__ = ["ChannelStreams"]

SAMPLES = AudioFormat("f32")
"""What each stream is fed with when the audio was decoded before."""


class ChannelStreams:
    """Belongs to one connection, which nobody comes back to. One call of `feed`, `finalize`, `close` at a time."""

    def __init__(self, live: LiveService, streams: Sequence[LiveStream], intake: StreamAudioDecoder | None) -> None:
        """`intake`: tells the channels apart; None where there is one stream."""
        self.streams = tuple(streams)
        self.is_closing = False
        """No more audio is taken."""
        self._live = live
        self._intake = intake
        self._inbox = RequestQueue(self, live.spool_space) if intake else None
        self._readers = [live.attach(stream) for stream in streams]

    @classmethod
    async def open(
        cls, live: LiveService, wanted: StreamRequest, audio: AudioFormat, caller: Caller = ANONYMOUS, channels: int = 1
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
                stream = await live.open_stream(wanted, SAMPLES if apart else audio, caller)
                opened.callback(live.discard, stream)
                streams.append(stream)
            opened.pop_all()
        return cls(live, streams, StreamAudioDecoder(audio, split=True) if apart else None)

    @property
    def seconds(self) -> float:
        """Audio received."""
        return max(stream.session.seconds for stream in self.streams)

    @property
    def problems(self) -> list[str]:
        """What of the audio could not be read."""
        return self._intake.problems if self._intake else self.streams[0].problems

    @property
    def has_backlog(self) -> bool:
        """Audio waits that could be heard: the client need say nothing meanwhile."""
        return bool(self._inbox and not self._inbox.is_empty) or any(stream.has_backlog for stream in self.streams)

    async def push_audio(self, data: bytes) -> None:
        """Audio in the connection's format, cut anywhere. What cannot be heard yet is kept; nothing is waited for.

        What came before audio that cannot be read, or kept, is transcribed; then the streams fail.
        """
        if self.is_closing:
            return
        if self._inbox is None:
            await self.streams[0].push_audio(data, self._readers[0])
            return
        try:
            self._inbox.put_audio(data)
        except BacklogFull as error:
            await self._overflow(error)

    def push_audio_now(self, data: bytes) -> bool:
        """The same at once; False, and nothing was taken, where `feed` would refuse, or tell channels apart."""
        return self._inbox is None and not self.is_closing and self.streams[0].push_audio_now(data, self._readers[0])

    async def finalize(self, marker: int) -> None:
        """That was all for now: each channel tells a Marker."""
        if not self.is_closing:
            await self._then(partial(self._finalize, marker))

    async def configure(self, endpointing: Endpointing, lag_every: float = LAG_INTERVAL) -> None:
        """Of streams that are not told apart, for what comes from now on."""
        await self.streams[0].configure(endpointing, lag_every)

    async def close(self) -> None:
        """That was all; more than once does no harm."""
        if not self.is_closing:
            self.is_closing = True
            await self._then(self._close)

    def stop(self, event: Failed) -> None:
        """Ends all of them from this side."""
        for stream in self.streams:
            stream.session.stop(event)

    def cancel(self) -> None:
        """Nobody wants the rest; more than once does no harm."""
        self.is_closing = True
        if self._inbox:
            self._inbox.close()
        if self._intake:
            self._intake.close()
        for stream in self.streams:
            self._live.discard(stream)

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """Of all channels, in the order in which they come; ends when all have ended."""
        if self._intake is None:
            async for event in self.streams[0].events(self._readers[0]):
                yield 0, event
            return
        pairs = zip(self.streams, self._readers, strict=True)
        told = [aiter(stream.events(reader)) for stream, reader in pairs]
        waiting = {
            start_task(_anext(events), "reading events of a channel"): channel for channel, events in enumerate(told)
        }
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for each in sorted(done, key=waiting.__getitem__):
                    channel = waiting.pop(each)
                    if (came := each.result()) is not None:
                        waiting[start_task(_anext(told[channel]), "reading events of a channel")] = channel
                        yield channel, came
        finally:
            for each in waiting:
                each.cancel()

    async def _then(self, action: Callable[[], Awaitable[None]]) -> None:
        """After the audio that came so far."""
        await (self._inbox.put_action(action) if self._inbox else action())

    # What the inbox asks for, one after the other, where channels are told apart.

    @property
    def is_writable(self) -> bool:
        return bool(self._intake and self._intake.is_immediate) and all(stream.is_writable for stream in self.streams)

    def process_now(self, data: bytes) -> None:
        assert self._intake
        try:
            samples = self._intake.decode_now(data)
        except UnsupportedAudio as error:
            self._spoil(error)
        else:
            for row, stream, reader in zip(samples, self.streams, self._readers, strict=True):
                stream.push_audio_now(row.tobytes(), reader)

    async def process(self, data: bytes) -> None:
        assert self._intake
        for stream in self.streams:
            await stream.wait_until_writable()
        try:
            samples = await self._intake.decode(data)
        except UnsupportedAudio as error:
            self._spoil(error)
        else:
            await self._share(samples)

    def fail(self, error: Exception) -> None:
        for stream in self.streams:
            stream.fail(error)

    async def _finalize(self, marker: int) -> None:
        if self._intake:
            await self._share(self._intake.flush())
        for stream, reader in zip(self.streams, self._readers, strict=True):
            await stream.finalize(marker, reader)

    async def _close(self) -> None:
        await self._finish()
        for stream, reader in zip(self.streams, self._readers, strict=True):
            await stream.close(reader)

    async def _finish(self) -> None:
        """What the decoder still has."""
        if self._intake:
            try:
                await self._share(await self._intake.finish())
            except UnsupportedAudio as error:
                self._spoil(error)

    async def _share(self, samples: Samples) -> None:
        """samples [channels, n]."""
        if samples.size:
            for row, stream, reader in zip(samples, self.streams, self._readers, strict=True):
                await stream.push_audio(row.tobytes(), reader)

    async def _overflow(self, error: BacklogFull) -> None:
        """What is kept is transcribed, what follows is not taken."""
        self.is_closing = True

        async def end() -> None:
            await self._finish()
            self._spoil(error)

        for stream in self.streams:
            stream.warn_before_failing(error)
        await self._then(end)

    def _spoil(self, error: UnsupportedAudio | BacklogFull) -> None:
        self.is_closing = True
        if self._inbox:
            self._inbox.close()
        for stream in self.streams:
            stream.fail_after_audio(error)


async def _anext(events: AsyncIterator[Event]) -> Event | None:
    """None after the last one."""
    return await anext(events, None)
