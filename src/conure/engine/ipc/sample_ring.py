"""Samples on their way to another process, in memory that both see.

One side writes, the other reads, each in the order of the messages that name the places; a place is `(at, count)` with
`at` counted from the ring's first use. What was read makes room.
"""

from __future__ import annotations

import contextlib
from multiprocessing.shared_memory import SharedMemory

import numpy as np
from numpy.typing import NDArray

__all__ = ["SampleRing"]

Samples = NDArray[np.float32]

HEADER = 64
"""Bytes before the samples: how many were read. A cache line of its own."""


class SampleRing:
    """float32 samples; what is up to half of its size fits an empty ring, wherever it stands."""

    def __init__(self, memory: SharedMemory, *, owner: bool) -> None:
        self._memory = memory
        self._owner = owner
        assert memory.buf is not None
        self._read = np.frombuffer(memory.buf, np.int64, 1)
        self._samples = np.frombuffer(memory.buf, np.float32, (memory.size - HEADER) // 4, HEADER)
        self._written = 0
        self._is_closed = False

    @staticmethod
    def create(samples: int) -> SampleRing:
        ring = SampleRing(SharedMemory(create=True, size=HEADER + 4 * samples), owner=True)
        ring._read[0] = 0
        return ring

    @staticmethod
    def attach(name: str) -> SampleRing:
        """The ring of that name, which nobody else can attach to then: its memory goes with the last of the two."""
        memory = SharedMemory(name)
        memory.unlink()
        return SampleRing(memory, owner=False)

    @property
    def name(self) -> str:
        return self._memory.name

    @property
    def size(self) -> int:
        return len(self._samples)

    def write(self, samples: Samples) -> tuple[int, int] | None:
        """The place of a copy, in one piece; None where there is no room now."""
        size, count = self.size, len(samples)
        at = self._written
        if at % size + count > size:
            at += size - at % size  # it would be torn: begin at the start
        if at + count - int(self._read[0]) > size:
            return None
        self._samples[at % size : at % size + count] = samples
        self._written = at + count
        return at, count

    def read(self, at: int, count: int) -> Samples:
        """A copy; its place and all before it are free then."""
        begin = at % self.size
        samples = self._samples[begin : begin + count].copy()
        self._read[0] = at + count
        return samples

    def close(self) -> None:
        """Neither side may use it after it closed it."""
        if self._is_closed:
            return
        self._is_closed = True
        del self._read, self._samples
        self._memory.close()
        if self._owner:
            with contextlib.suppress(FileNotFoundError):  # the other side attached to it
                self._memory.unlink()
