"""How long a turn will take: as it was measured at the start, and as the last turns of its kind took.

What was measured is corrected by what is learned. Sizes that were not tried since are taken for cheaper where smaller
turns turned out to be: the machine may have been busy when it was measured.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable

__all__ = ["StepCosts"]

WEIGHT = 0.2
"""Of the newest measurement: the machine's speed comes and goes, and so do other programs."""

MEMORY = 500
"""Turns of a kind after which what was learned of a size that did not come again is forgotten."""

Sizes = dict[int, tuple[float, float]]
"""By the power of two: mean of the sizes, mean of the seconds."""


class StepCosts:
    """Seconds by kind of work (a lane and its chunk, a slice of clips) and by size, in powers of two.

    What is kept of a size is the mean of the seconds and of the sizes they were measured at.
    """

    def __init__(self) -> None:
        self._planned: dict[Hashable, Sizes] = {}
        self._learned: dict[Hashable, Sizes] = {}
        self._turns: dict[Hashable, int] = {}
        self._last: dict[Hashable, dict[int, int]] = {}
        """Turns of a kind, and the last one of each size."""
        self._known: dict[Hashable, list[tuple[float, float]]] = {}
        """Sizes and seconds of both, the least first; made when they are asked for."""

    def plan(self, kind: Hashable, size: int, seconds: float) -> None:
        """As it was measured when nobody waited; again in the place of the last one."""
        self._planned.setdefault(kind, {})[size.bit_length()] = (float(size), seconds)
        self._known.pop(kind, None)

    def learn(self, kind: Hashable, size: int, seconds: float) -> None:
        """As it was in earnest."""
        power, sizes = size.bit_length(), self._learned.setdefault(kind, {})
        mean, known = sizes.get(power) or self._planned.get(kind, {}).get(power) or (float(size), seconds)
        sizes[power] = (mean + WEIGHT * (size - mean), known + WEIGHT * (seconds - known))
        self._forget(kind, power)
        self._known.pop(kind, None)

    def _forget(self, kind: Hashable, power: int) -> None:
        """A turn of that size was made; what has not come for long may have been dear for others' sake."""
        turn = self._turns[kind] = self._turns.get(kind, 0) + 1
        last = self._last.setdefault(kind, {})
        last[power] = turn
        for old in [size for size, at in last.items() if turn - at > MEMORY]:
            del last[old], self._learned[kind][old]

    def guess(self, kind: Hashable, size: int) -> float:
        """0 for a kind that was never seen. Between known sizes on a straight line; above them as if time grew with
        size, below them as the least."""
        known = self._known.get(kind)
        if known is None:
            known = self._known[kind] = _corrected(self._planned.get(kind, {}), self._learned.get(kind, {}))
        return _on_a_line(known, size)


def _corrected(planned: Sizes, learned: Sizes) -> list[tuple[float, float]]:
    """What was planned of sizes that were not tried is less by the factor by which the largest smaller one was."""
    before = sorted(planned.values())
    known, factor = [], 1.0
    for power in sorted({*planned, *learned}):
        if power in learned:
            size, seconds = learned[power]
            if before and seconds:
                factor = min(seconds / _on_a_line(before, size), 1.0)
        else:
            size, seconds = planned[power]
            seconds *= factor
        known.append((size, seconds))
    return sorted(known)


def _on_a_line(known: list[tuple[float, float]], size: float) -> float:
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
