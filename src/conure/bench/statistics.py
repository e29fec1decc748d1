"""The arithmetic of measurements. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["PRECISION", "Spread", "largest", "slope", "spread_of"]

PRECISION = 0.05


@dataclass(frozen=True)
class Spread:
    """How numbers are distributed; all of one unit."""

    count: int
    p50: float
    p90: float
    p99: float
    most: float


def spread_of(values: Sequence[float]) -> Spread | None:
    """None where there is nothing."""
    if not values:
        return None
    p50, p90, p99 = np.percentile(values, (50, 90, 99)).tolist()
    return Spread(len(values), p50, p90, p99, max(values))


def largest(
    holds: Callable[[int], bool],
    first: int,
    most: int,
    precision: float = PRECISION,
    enough: Callable[[], bool] = lambda: False,
) -> int:
    """The largest number from 1 to `most` that holds, to that part of itself; 0 where 1 does not.

    What holds for a number is taken to hold for all below it: doubled from `first` on, then halved. Once it is
    `enough` it is the largest that was seen to hold.
    """
    low, high = 0, min(max(first, 1), most)
    while holds(high):
        low, high = high, min(2 * high, most)
        if low == most or enough():
            return low
    while high - low > max(1, precision * low) and not enough():
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Growth in a unit of time, by least squares; 0 for fewer than two points."""
    if len(times) < 2:
        return 0.0
    return float(np.polyfit(times, values, 1)[0])
