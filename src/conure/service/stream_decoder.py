"""Decodes the audio of a stream: bytes -> samples at 16 kHz. Containers are decoded on threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from conure.audio.formats import AudioFormat
from conure.audio.live_decoder import LiveDecoder
from conure.background import report_if_failed
from conure.engine.messages import Samples

__all__ = ["StreamAudioDecoder"]

MAX_THREADS = 32
"""Of all streams; separate from the event loop's default executor, which has other work."""

_threads = ThreadPoolExecutor(MAX_THREADS, "intake")


class StreamAudioDecoder:
    """Decoder of one stream. Raises UnsupportedAudio, after which only `close` may be called.

    One call at a time. If a call is cancelled, its samples are returned by the next one.
    """

    def __init__(self, audio: AudioFormat, split: bool = False) -> None:
        """`split`: samples are [channels, n]; else the mean of the channels, [n]."""
        self.received_bytes = 0
        """So far."""
        self._decoder = LiveDecoder(audio, split)
        self._no_samples = np.empty((audio.channels, 0) if split else 0, np.float32)
        self._on_thread = audio.encoding == "container"
        self._pending: asyncio.Future[Samples] | None = None
        self._decoded: list[Samples] = []
        self._is_finished = self._is_closed = False

    @property
    def problems(self) -> list[str]:
        return self._decoder.problems

    async def decode(self, data: bytes) -> Samples:
        """The samples that are available with this data."""
        await self._wait()
        self.received_bytes += len(data)
        return await self._decode(lambda: self._decoder.push(data))

    @property
    def is_immediate(self) -> bool:
        """Whether `decode_now` may be called."""
        return not self._on_thread and not self._is_finished

    def decode_now(self, data: bytes) -> Samples:
        """As `decode`, synchronously."""
        self.received_bytes += len(data)
        return self._decoder.push(data)

    def flush(self) -> Samples:
        """The samples that the resampling filter holds back; more audio may follow."""
        return self._no_samples if self._on_thread or self._is_finished else self._decoder.flush()

    async def finish(self) -> Samples:
        """The remaining samples; none if it was called before."""
        await self._wait()
        if self._is_finished:
            return await self._decode(lambda: self._no_samples)
        self._is_finished = True
        return await self._decode(self._decoder.finish)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._on_thread:
            closing = _threads.submit(self._decoder.close)  # it blocks until the decoder's thread has ended
            report_if_failed(closing, "closing a decoder")
        else:
            self._decoder.close()

    async def _decode(self, work: Callable[[], Samples]) -> Samples:
        if not self._on_thread:
            return work()
        self._pending = asyncio.get_running_loop().run_in_executor(_threads, self._unless_closed, work)
        self._pending.add_done_callback(_retrieve_error)
        await self._wait()
        samples, self._decoded = np.concatenate(self._decoded, axis=-1), []
        return samples

    async def _wait(self) -> None:
        if self._pending is not None:
            await asyncio.wait([self._pending])  # a cancelled `wait`, unlike `await`, does not cancel the work
            pending, self._pending = self._pending, None
            self._decoded.append(pending.result())

    def _unless_closed(self, work: Callable[[], Samples]) -> Samples:
        return self._no_samples if self._is_closed else work()


def _retrieve_error(pending: asyncio.Future[Samples]) -> None:
    """Prevents asyncio's log of an error that no call waits for any more."""
    if not pending.cancelled():
        pending.exception()
