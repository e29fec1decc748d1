"""Samples of a stream that somebody still needs, found by their place in the stream."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["SampleBuffer"]

Samples = NDArray[np.float32]

LEAST = 8_000
"""Samples for which there is always room."""
WORTH_GIVING_BACK = 4 * LEAST
"""Room for more than so many: a stream that goes on in long chunks would soon ask for less again."""


class SampleBuffer:
    """Grows at its end, and forgets its beginning when told to."""

    def __init__(self) -> None:
        self._data: Samples = np.empty(LEAST, np.float32)
        self._first = 0
        """Place in the stream of the first sample that is held."""
        self._size = 0

    @property
    def start(self) -> int:
        """The first sample that is held."""
        return self._first

    @property
    def end(self) -> int:
        """Samples of the stream so far, the forgotten ones counted."""
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
        """What is there of the stream from `begin` to `end`, not copied: until it next changes.

        Raises ValueError where samples are asked for that were forgotten.
        """
        if begin < self._first:
            raise ValueError(f"sample {begin} was forgotten, the first one held is {self._first}")
        return self._data[begin - self._first : min(end - self._first, self._size)]

    def read_into(self, begin: int, out: Samples, end: int | None = None) -> None:
        """Fills `out` with the stream from `begin` on, and with zeros before its start and from `end` on.

        Raises ValueError where samples are asked for that were forgotten.
        """
        until = begin + len(out)
        if self._first <= begin and until <= self._first + self._size and end is None:  # as nearly always
            out[:] = self._data[begin - self._first : until - self._first]
            return
        last = min(until, self.end) if end is None else min(until, self.end, end)
        first = max(begin, 0)
        if first < min(last, self._first):
            raise ValueError(f"sample {first} was forgotten, the first one held is {self._first}")
        if begin < first or last < until:
            out[:] = 0
        if first < last:
            out[first - begin : last - begin] = self._data[first - self._first : last - self._first]

    def discard_before(self, before: int) -> None:
        """Samples before that place are not needed any more; memory is given back when half of it is idle."""
        idle = before - self._first
        if idle * 2 < len(self._data) and idle < self._size:
            return
        idle = min(idle, self._size)
        kept = self._data[idle : self._size]
        if len(self._data) > max(WORTH_GIVING_BACK, 4 * len(kept)):
            self._data = np.empty(max(LEAST, 2 * len(kept)), np.float32)
        self._data[: len(kept)] = kept
        self._first += idle
        self._size = len(kept)
