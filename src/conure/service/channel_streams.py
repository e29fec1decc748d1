"""Several channels of one connection, each a stream of its own.

    bytes ──> decoder ──┬─> samples of channel 0 ──> LiveStream ──┐
                        └─> samples of channel 1 ──> LiveStream ──┴─> (channel, event), in order of arrival

If the channels are mixed, there is one stream, which receives the bytes unchanged.
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

DECODED = AudioFormat("f32")
"""Format of each stream's audio if it is decoded here."""


class ChannelStreams:
    """Owned by one connection; not resumable. One call of `push_audio`, `finalize` or `close` at a time."""

    def __init__(self, live: LiveService, streams: Sequence[LiveStream], decoder: StreamAudioDecoder | None) -> None:
        """`decoder`: splits the channels; None if there is one stream."""
        self.streams = tuple(streams)
        self.is_closing = False
        """No more audio is accepted."""
        self._live = live
        self._decoder = decoder
        self._queue = RequestQueue(self, live.spool_space) if decoder else None
        self._readers = [live.attach(stream) for stream in streams]

    @classmethod
    async def open(
        cls,
        live: LiveService,
        request: StreamRequest,
        audio: AudioFormat,
        caller: Caller = ANONYMOUS,
        channels: int = 1,
    ) -> Self:
        """Opens all streams or none. `channels`: 1 for their mean, or the number of channels of the audio.

        If a container has fewer channels, the others are silent; if it has more, they are ignored.
        Raises as `LiveService.open_stream`.
        """
        if audio.encoding == "container":
            audio = replace(audio, channels=channels)
        if channels not in (1, audio.channels):
            raise BadOption(f"cannot split the audio into {channels} channels", f"it has {audio.channels}")
        split = channels > 1
        async with AsyncExitStack() as stack:
            streams = []
            for _ in range(channels):
                stream = await live.open_stream(request, DECODED if split else audio, caller)
                stack.callback(live.discard, stream)
                streams.append(stream)
            stack.pop_all()
        return cls(live, streams, StreamAudioDecoder(audio, split=True) if split else None)

    @property
    def seconds(self) -> float:
        """Audio received."""
        return max(stream.session.seconds for stream in self.streams)

    @property
    def problems(self) -> list[str]:
        """Parts of the audio that could not be read."""
        return self._decoder.problems if self._decoder else self.streams[0].problems

    @property
    def has_backlog(self) -> bool:
        """Audio or requests wait to be processed, so the client may be silent without being idle."""
        return bool(self._queue and not self._queue.is_empty) or any(stream.has_backlog for stream in self.streams)

    async def push_audio(self, data: bytes) -> None:
        """Audio in the connection's format, split anywhere. It is queued if it cannot be processed yet; never blocks.

        If audio cannot be decoded or queued, the audio before it is transcribed; then the streams fail.
        """
        if self.is_closing:
            return
        if self._queue is None:
            await self.streams[0].push_audio(data, self._readers[0])
            return
        try:
            self._queue.put_audio(data)
        except BacklogFull as error:
            await self._overflow(error)

    def push_audio_now(self, data: bytes) -> bool:
        """As `push_audio`, synchronously. False if that would fail or channels are split; then nothing was accepted."""
        return self._queue is None and not self.is_closing and self.streams[0].push_audio_now(data, self._readers[0])

    async def finalize(self, marker: int) -> None:
        """Requests a final of the audio so far; each channel sends a Marker."""
        if not self.is_closing:
            await self._enqueue(partial(self._finalize, marker))

    async def configure(self, endpointing: Endpointing, lag_interval: float = LAG_INTERVAL) -> None:
        """For connections with one stream; applies to the audio that follows."""
        await self.streams[0].configure(endpointing, lag_interval)

    async def close(self) -> None:
        """Ends the audio; idempotent."""
        if not self.is_closing:
            self.is_closing = True
            await self._enqueue(self._close)

    def stop(self, event: Failed) -> None:
        """Ends all streams with that event."""
        for stream in self.streams:
            stream.session.stop(event)

    def cancel(self) -> None:
        """Ends all streams without a result; idempotent."""
        self.is_closing = True
        if self._queue:
            self._queue.close()
        if self._decoder:
            self._decoder.close()
        for stream in self.streams:
            self._live.discard(stream)

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """(channel, event) of all channels, in order of arrival; ends when all streams have ended."""
        if self._decoder is None:
            async for event in self.streams[0].events(self._readers[0]):
                yield 0, event
            return
        pairs = zip(self.streams, self._readers, strict=True)
        iterators = [aiter(stream.events(reader)) for stream, reader in pairs]
        waiting = {
            start_task(_anext(events), "reading events of a channel"): channel
            for channel, events in enumerate(iterators)
        }
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=waiting.__getitem__):
                    channel = waiting.pop(task)
                    if (received := task.result()) is not None:
                        waiting[start_task(_anext(iterators[channel]), "reading events of a channel")] = channel
                        yield channel, received
        finally:
            for task in waiting:
                task.cancel()

    async def _enqueue(self, action: Callable[[], Awaitable[None]]) -> None:
        """Runs the action after all audio received so far."""
        await (self._queue.put_action(action) if self._queue else action())

    # The consumer of the queue, if channels are split: one call at a time.

    @property
    def is_writable(self) -> bool:
        return bool(self._decoder and self._decoder.is_immediate) and all(stream.is_writable for stream in self.streams)

    def process_now(self, data: bytes) -> None:
        assert self._decoder
        try:
            samples = self._decoder.decode_now(data)
        except UnsupportedAudio as error:
            self._fail_after_audio(error)
        else:
            for channel, stream, reader in zip(samples, self.streams, self._readers, strict=True):
                stream.push_audio_now(channel.tobytes(), reader)

    async def process(self, data: bytes) -> None:
        assert self._decoder
        for stream in self.streams:
            await stream.wait_until_writable()
        try:
            samples = await self._decoder.decode(data)
        except UnsupportedAudio as error:
            self._fail_after_audio(error)
        else:
            await self._push(samples)

    def fail(self, error: Exception) -> None:
        for stream in self.streams:
            stream.fail(error)

    async def _finalize(self, marker: int) -> None:
        if self._decoder:
            await self._push(self._decoder.flush())
        for stream, reader in zip(self.streams, self._readers, strict=True):
            await stream.finalize(marker, reader)

    async def _close(self) -> None:
        await self._finish()
        for stream, reader in zip(self.streams, self._readers, strict=True):
            await stream.close(reader)

    async def _finish(self) -> None:
        """Passes on the rest of the decoder's samples."""
        if self._decoder:
            try:
                await self._push(await self._decoder.finish())
            except UnsupportedAudio as error:
                self._fail_after_audio(error)

    async def _push(self, samples: Samples) -> None:
        """samples [channels, n]."""
        if samples.size:
            for channel, stream, reader in zip(samples, self.streams, self._readers, strict=True):
                await stream.push_audio(channel.tobytes(), reader)

    async def _overflow(self, error: BacklogFull) -> None:
        """Queued audio is transcribed; no more is accepted."""
        self.is_closing = True

        async def end() -> None:
            await self._finish()
            self._fail_after_audio(error)

        for stream in self.streams:
            stream.warn_before_failing(error)
        await self._enqueue(end)

    def _fail_after_audio(self, error: UnsupportedAudio | BacklogFull) -> None:
        self.is_closing = True
        if self._queue:
            self._queue.close()
        for stream in self.streams:
            stream.fail_after_audio(error)


async def _anext(events: AsyncIterator[Event]) -> Event | None:
    """None after the last event."""
    return await anext(events, None)
