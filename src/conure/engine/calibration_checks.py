"""Consistency of measured step times: other programs make a step appear slower, and never faster. Pure.

A step with more rows takes at least as long. A longer chunk takes at least as long as a shorter one, and at most as
long as the shorter chunks of the same duration.
"""

from __future__ import annotations

from itertools import pairwise

from conure.engine.step_costs import StepCosts

__all__ = ["StepTimes", "find_doubtful", "find_impossible", "make_consistent", "with_step"]

StepTimes = dict[int, list[tuple[int, float]]]
"""By latency in milliseconds, ascending: rows of a step, ascending, and its seconds."""

TOLERANCE = 1.15
"""Factor over the consistent time, within which a measurement is accepted."""
MAX_ROW_SLOWDOWN = 1.5
"""Factor of the time per row over that of a smaller step, within which it is plausible: caches may be full."""


def find_impossible(times: StepTimes) -> list[tuple[int, int]]:
    """Latency and rows of steps that took longer than the other steps allow."""
    limits = {latency: dict(pairs) for latency, pairs in make_consistent(times).items()}
    return [
        (latency, rows)
        for latency, pairs in times.items()
        for rows, seconds in pairs
        if seconds > limits[latency][rows] * TOLERANCE
    ]


def find_doubtful(times: StepTimes) -> list[tuple[int, int]]:
    """The impossible steps, and those slow in comparison with fewer rows, perhaps because of other programs."""
    slow = [
        (latency, rows)
        for latency, pairs in times.items()
        for (fewer_rows, fewer_seconds), (rows, seconds) in pairwise(pairs)
        if seconds > fewer_seconds * rows / fewer_rows * MAX_ROW_SLOWDOWN
    ]
    return sorted({*slow, *find_impossible(times)})


def make_consistent(times: StepTimes) -> StepTimes:
    """Lowers each time to what the others allow; every latency gets the same rows."""
    table = _fill_rows(times)
    latencies, sizes = sorted(table), sorted(table[min(table)])
    for shorter, longer in pairwise(latencies):
        for rows in sizes:
            table[longer][rows] = min(table[longer][rows], table[shorter][rows] * longer / shorter)
    for longer, shorter in pairwise(latencies[::-1]):
        for rows in sizes:
            table[shorter][rows] = min(table[shorter][rows], table[longer][rows])
    for more, fewer in pairwise(sizes[::-1]):
        for latency in latencies:
            table[latency][fewer] = min(table[latency][fewer], table[latency][more])
    return {latency: sorted(table[latency].items()) for latency in latencies}


def _fill_rows(times: StepTimes) -> dict[int, dict[int, float]]:
    """Seconds by latency and rows; estimates the rows that were measured at other latencies only."""
    costs = StepCosts()
    for latency, pairs in times.items():
        for rows, seconds in pairs:
            costs.set_baseline(latency, rows, seconds)
    sizes = {rows for pairs in times.values() for rows, _ in pairs}
    return {
        latency: {rows: costs.estimate(latency, rows) for rows in sizes} | dict(pairs)
        for latency, pairs in times.items()
    }


def with_step(times: StepTimes, latency: int, rows: int, seconds: float) -> StepTimes:
    """Adds a measurement; of several of the same rows, the fastest counts."""
    sizes = dict(times[latency])
    sizes[rows] = min(sizes.get(rows, seconds), seconds)
    return times | {latency: sorted(sizes.items())}
