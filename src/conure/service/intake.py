"""Bytes of a client's audio to samples, off the event loop where a container has to be decoded."""

from __future__ import annotations

import asyncio

from conure.audio.formats import AudioFormat
from conure.audio.live import LiveDecoder
from conure.engine.messages import Samples

__all__ = ["Intake"]


class Intake:
    """One stream's. Raises UnsupportedAudio, after which only `close` is of use."""

    def __init__(self, audio: AudioFormat) -> None:
        self._format = audio
        self.received = 0
        """Bytes so far."""
        self._decoder = LiveDecoder(audio)

    @property
    def problems(self) -> list[str]:
        return self._decoder.problems

    async def push(self, data: bytes) -> Samples:
        """Mono, 16 kHz: what has become available."""
        self.received += len(data)
        if self._format.encoding == "container":
            return await asyncio.to_thread(self._decoder.push, data)
        return self._decoder.push(data)

    async def finish(self) -> Samples:
        """The rest."""
        if self._format.encoding == "container":
            return await asyncio.to_thread(self._decoder.finish)
        return self._decoder.finish()

    def close(self) -> None:
        self._decoder.close()
