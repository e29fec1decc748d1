"""Statistics of measurements. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["PRECISION", "Spread", "find_largest", "slope", "compute_spread"]

PRECISION = 0.05


@dataclass(frozen=True)
class Spread:
    """Percentiles and maximum of values in one unit. The names are those of `conure bench --json`."""

    count: int
    p50: float
    p90: float
    p99: float
    most: float


def compute_spread(values: Sequence[float]) -> Spread | None:
    """None without values."""
    if not values:
        return None
    p50, p90, p99 = np.percentile(values, (50, 90, 99)).tolist()
    return Spread(len(values), p50, p90, p99, max(values))


def find_largest(
    predicate: Callable[[int], bool],
    first: int,
    maximum: int,
    precision: float = PRECISION,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """The largest number from 1 to `maximum` that satisfies the predicate, within a relative precision; 0 if none does.

    Assumes a monotonic predicate: doubles from `first` until it fails, then bisects. When `should_stop()` is true, the
    search ends with the largest number found so far.
    """
    low, high = 0, min(max(first, 1), maximum)
    while predicate(high):
        low, high = high, min(2 * high, maximum)
        if low == maximum or should_stop():
            return low
    while high - low > max(1, precision * low) and not should_stop():
        middle = (low + high) // 2
        low, high = (middle, high) if predicate(middle) else (low, middle)
    return low


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Growth per unit of time, by least squares; 0 for fewer than two points."""
    if len(times) < 2:
        return 0.0
    return float(np.polyfit(times, values, 1)[0])
