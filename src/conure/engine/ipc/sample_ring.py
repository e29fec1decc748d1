"""A ring buffer in shared memory that carries samples to another process.

One process writes and one reads, both in the order of the messages that name the places. A place is `(at, count)`, with
`at` counted from the first sample ever written. Reading a place frees it.
"""

from __future__ import annotations

import contextlib
from multiprocessing.shared_memory import SharedMemory

import numpy as np
from numpy.typing import NDArray

__all__ = ["SampleRing"]

Samples = NDArray[np.float32]

HEADER_BYTES = 64
"""Before the samples: the count of samples that were read. One cache line, shared with nothing else."""


class SampleRing:
    """float32 samples. Up to half of the size always fits an empty ring, wherever its write position is."""

    def __init__(self, memory: SharedMemory, *, owner: bool) -> None:
        self._memory = memory
        self._owner = owner
        assert memory.buf is not None
        self._read_count = np.frombuffer(memory.buf, np.int64, 1)
        self._samples = np.frombuffer(memory.buf, np.float32, (memory.size - HEADER_BYTES) // 4, HEADER_BYTES)
        self._written = 0
        self._is_closed = False

    @staticmethod
    def create(samples: int) -> SampleRing:
        ring = SampleRing(SharedMemory(create=True, size=HEADER_BYTES + 4 * samples), owner=True)
        ring._read_count[0] = 0
        return ring

    @staticmethod
    def attach(name: str) -> SampleRing:
        """Attaches to a ring and unlinks its name: its memory is freed when both processes have closed it."""
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
        """Copies the samples into one contiguous place and returns it; None when there is no room."""
        size, count = self.size, len(samples)
        at = self._written
        if at % size + count > size:
            at += size - at % size  # keeps the copy contiguous
        if at + count - int(self._read_count[0]) > size:
            return None
        self._samples[at % size : at % size + count] = samples
        self._written = at + count
        return at, count

    def read(self, at: int, count: int) -> Samples:
        """A copy of a place; frees it and everything before it."""
        begin = at % self.size
        samples = self._samples[begin : begin + count].copy()
        self._read_count[0] = at + count
        return samples

    def close(self) -> None:
        """This side must not use the ring any more."""
        if self._is_closed:
            return
        self._is_closed = True
        del self._read_count, self._samples
        self._memory.close()
        if self._owner:
            with contextlib.suppress(FileNotFoundError):  # the other process attached to it
                self._memory.unlink()
