"""A buffer of a stream's samples that are still needed, addressed by their index in the stream."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["SampleBuffer"]

Samples = NDArray[np.float32]

MIN_CAPACITY = 8_000
MAX_IDLE_CAPACITY = 4 * MIN_CAPACITY
"""Capacity up to which memory is never released: a stream with long chunks would soon need it again."""


class SampleBuffer:
    """Samples are appended at the end and discarded at the beginning."""

    def __init__(self) -> None:
        self._data: Samples = np.empty(MIN_CAPACITY, np.float32)
        self._first = 0
        """Index in the stream of the first buffered sample."""
        self._size = 0

    @property
    def start(self) -> int:
        """Index of the first buffered sample."""
        return self._first

    @property
    def end(self) -> int:
        """Number of samples of the stream so far, discarded ones included."""
        return self._first + self._size

    def append(self, samples: Samples) -> None:
        size = self._size + len(samples)
        if size > len(self._data):
            grown = np.empty(max(2 * len(self._data), size), np.float32)
            grown[: self._size] = self._data[: self._size]
            self._data = grown
        self._data[self._size : size] = samples
        self._size = size

    def view(self, begin: int, end: int) -> Samples:
        """The available samples in [begin, end) as a view, valid until the buffer changes.

        Raises ValueError if requested samples were discarded.
        """
        if begin < self._first:
            raise ValueError(f"sample {begin} was discarded, the first one is {self._first}")
        return self._data[begin - self._first : min(end - self._first, self._size)]

    def read_into(self, begin: int, out: Samples, end: int | None = None) -> None:
        """Fills `out` with the stream from `begin` on, and with zeros before its start and from `end` on.

        Raises ValueError if requested samples were discarded.
        """
        until = begin + len(out)
        if self._first <= begin and until <= self._first + self._size and end is None:  # the usual case
            out[:] = self._data[begin - self._first : until - self._first]
            return
        last = min(until, self.end) if end is None else min(until, self.end, end)
        first = max(begin, 0)
        if first < min(last, self._first):
            raise ValueError(f"sample {first} was discarded, the first one is {self._first}")
        if begin < first or last < until:
            out[:] = 0
        if first < last:
            out[first - begin : last - begin] = self._data[first - self._first : last - self._first]

    def discard_before(self, before: int) -> None:
        """Discards samples before this index; memory is compacted when half of it is idle."""
        idle = before - self._first
        if idle * 2 < len(self._data) and idle < self._size:
            return
        idle = min(idle, self._size)
        kept = self._data[idle : self._size]
        if len(self._data) > max(MAX_IDLE_CAPACITY, 4 * len(kept)):
            self._data = np.empty(max(MIN_CAPACITY, 2 * len(kept)), np.float32)
        self._data[: len(kept)] = kept
        self._first += idle
        self._size = len(kept)
