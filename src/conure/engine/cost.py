"""How long a turn will take, learned from the last ones of its kind."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable

__all__ = ["Costs"]

WEIGHT = 0.2
"""Of the newest measurement: the machine's speed comes and goes, and so do other programs."""


class Costs:
    """Seconds by kind of work (a lane and its chunk, a slice of clips) and by size, in powers of two.

    What is kept of a size is the mean of the seconds and of the sizes they were measured at.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, dict[int, tuple[float, float]]] = {}

    def learn(self, kind: Hashable, size: int, seconds: float) -> None:
        sizes = self._known.setdefault(kind, {})
        mean, known = sizes.get(size.bit_length(), (float(size), seconds))
        sizes[size.bit_length()] = (mean + WEIGHT * (size - mean), known + WEIGHT * (seconds - known))

    def guess(self, kind: Hashable, size: int) -> float:
        """0 for a kind that was never seen. Between known sizes on a straight line; above them as if time grew with
        size, below them as the least."""
        known = sorted(self._known.get(kind, {}).values())
        if not known:
            return 0.0
        above = bisect_left(known, (float(size), 0.0))
        if above == 0:
            return known[0][1]
        lower, seconds = known[above - 1]
        if above == len(known):
            return seconds * size / lower
        upper, more = known[above]
        return seconds + (more - seconds) * (size - lower) / (upper - lower)
