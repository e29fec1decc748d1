"""Bytes of a client's audio to samples, off the event loop where a container has to be decoded."""

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

MOST_AT_ONCE = 32
"""Pushes of all streams that wait for their decoders; the event loop's own threads are left to others."""

_threads = ThreadPoolExecutor(MOST_AT_ONCE, "intake")


class StreamAudioDecoder:
    """One stream's. Raises UnsupportedAudio, after which only `close` is of use.

    One call at a time. What a call that was cancelled would have given comes with the next one.
    """

    def __init__(self, audio: AudioFormat, split: bool = False) -> None:
        """`split`: samples are [channels, n], else the mean of the channels, [n]."""
        self.received_bytes = 0
        """Bytes so far."""
        self._decoder = LiveDecoder(audio, split)
        self._nothing = np.empty((audio.channels, 0) if split else 0, np.float32)
        self._on_thread = audio.encoding == "container"
        self._working: asyncio.Future[Samples] | None = None
        self._decoded: list[Samples] = []
        self._is_finished = self._is_closed = False

    @property
    def problems(self) -> list[str]:
        return self._decoder.problems

    async def decode(self, data: bytes) -> Samples:
        """At 16 kHz: what has become available."""
        await self._wait()
        self.received_bytes += len(data)
        return await self._decode(lambda: self._decoder.push(data))

    @property
    def is_immediate(self) -> bool:
        """Whether `take` may be called: nothing has to be waited for."""
        return not self._on_thread and not self._is_finished

    def decode_now(self, data: bytes) -> Samples:
        """As `push`, at once."""
        self.received_bytes += len(data)
        return self._decoder.push(data)

    def flush(self) -> Samples:
        """What a filter holds back, so that all that came is there; more may follow."""
        return self._nothing if self._on_thread or self._is_finished else self._decoder.flush()

    async def finish(self) -> Samples:
        """The rest; nothing where it was given before."""
        await self._wait()
        if self._is_finished:
            return await self._decode(lambda: self._nothing)
        self._is_finished = True
        return await self._decode(self._decoder.finish)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._on_thread:
            report_if_failed(
                _threads.submit(self._decoder.close), "closing a decoder"
            )  # it waits until its decoder has left
        else:
            self._decoder.close()

    async def _decode(self, work: Callable[[], Samples]) -> Samples:
        if not self._on_thread:
            return work()
        self._working = asyncio.get_running_loop().run_in_executor(_threads, self._unless_closed, work)
        self._working.add_done_callback(_note)
        await self._wait()
        samples, self._decoded = np.concatenate(self._decoded, axis=-1), []
        return samples

    async def _wait(self) -> None:
        if self._working is not None:
            await asyncio.wait([self._working])  # unlike `await` alone it leaves the work be when it is cancelled
            working, self._working = self._working, None
            self._decoded.append(working.result())

    def _unless_closed(self, work: Callable[[], Samples]) -> Samples:
        return self._nothing if self._is_closed else work()


def _note(working: asyncio.Future[Samples]) -> None:
    """An error that nobody waits for any more is no one's."""
    if not working.cancelled():
        working.exception()
