"""Estimates how long a step takes, from calibration and from the last steps of its kind.

Recorded steps correct the baseline of the calibration. Where smaller steps turned out cheaper than their baseline, the
baselines of larger sizes are scaled down, too: the machine may have been busy during calibration.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable

__all__ = ["StepCosts"]

WEIGHT = 0.2
"""Of the newest step in the moving average: the machine's speed varies, as does the load of other programs."""

MAX_AGE = 500
"""Steps of a kind after which the recorded cost of a size that did not occur again is dropped."""

Sizes = dict[int, tuple[float, float]]
"""By power of two: mean size and mean seconds."""


class StepCosts:
    """Seconds by kind of work (a lane and its chunk, a step of clips) and by size, in powers of two.

    Each power of two holds the mean of its sizes and the mean of their seconds.
    """

    def __init__(self) -> None:
        self._baseline: dict[Hashable, Sizes] = {}
        self._recorded: dict[Hashable, Sizes] = {}
        self._steps: dict[Hashable, int] = {}
        self._last_step: dict[Hashable, dict[int, int]] = {}
        """Number of the last step of each size, by kind."""
        self._points: dict[Hashable, list[tuple[float, float]]] = {}
        """Cache: sizes and seconds of both, ascending."""

    def set_baseline(self, kind: Hashable, size: int, seconds: float) -> None:
        """Sets the cost from calibration; replaces an earlier one."""
        self._baseline.setdefault(kind, {})[size.bit_length()] = (float(size), seconds)
        self._points.pop(kind, None)

    def record(self, kind: Hashable, size: int, seconds: float) -> None:
        """Records a step that was run for streams or clips."""
        power, sizes = size.bit_length(), self._recorded.setdefault(kind, {})
        mean, mean_seconds = sizes.get(power) or self._baseline.get(kind, {}).get(power) or (float(size), seconds)
        sizes[power] = (mean + WEIGHT * (size - mean), mean_seconds + WEIGHT * (seconds - mean_seconds))
        self._drop_old(kind, power)
        self._points.pop(kind, None)

    def _drop_old(self, kind: Hashable, power: int) -> None:
        """Drops sizes that did not occur for long: they may have been slow because of other programs."""
        step = self._steps[kind] = self._steps.get(kind, 0) + 1
        last_step = self._last_step.setdefault(kind, {})
        last_step[power] = step
        for old in [size for size, last in last_step.items() if step - last > MAX_AGE]:
            del last_step[old], self._recorded[kind][old]

    def estimate(self, kind: Hashable, size: int) -> float:
        """Seconds; 0 for an unknown kind.

        Interpolates linearly between known sizes; above them, time grows with size; below, the smallest size counts.
        """
        points = self._points.get(kind)
        if points is None:
            points = self._points[kind] = _corrected(self._baseline.get(kind, {}), self._recorded.get(kind, {}))
        return _interpolate(points, size)


def _corrected(baseline: Sizes, recorded: Sizes) -> list[tuple[float, float]]:
    """Scales the baseline of sizes without record by the correction of the largest smaller size that has one."""
    baseline_points = sorted(baseline.values())
    points, factor = [], 1.0
    for power in sorted({*baseline, *recorded}):
        if power in recorded:
            size, seconds = recorded[power]
            if baseline_points and seconds:
                factor = min(seconds / _interpolate(baseline_points, size), 1.0)
        else:
            size, seconds = baseline[power]
            seconds *= factor
        points.append((size, seconds))
    return sorted(points)


def _interpolate(points: list[tuple[float, float]], size: float) -> float:
    if not points:
        return 0.0
    above = bisect_left(points, (float(size), 0.0))
    if above == 0:
        return points[0][1]
    lower, seconds = points[above - 1]
    if above == len(points):
        return seconds * size / lower
    upper, upper_seconds = points[above]
    return seconds + (upper_seconds - seconds) * (size - lower) / (upper - lower)
