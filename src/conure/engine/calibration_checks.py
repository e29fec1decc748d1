"""What turns can have cost, of what was measured: others on the machine make a turn seem dearer, and never cheaper.

More rows cost at least as much. A longer chunk costs at least as much as a shorter one, and at most as much as the
short ones that it is made of. Pure.
"""

from __future__ import annotations

from itertools import pairwise

from conure.engine.step_costs import StepCosts

__all__ = ["Turns", "doubtful", "impossible", "sound", "with_turn"]

Turns = dict[int, list[tuple[int, float]]]
"""By latency in milliseconds, the least first: rows of a turn, fewest first, and its seconds."""

TOLERANCE = 1.15
"""Of what is possible; within it a measurement is as good as another one."""
LOSS = 1.5
"""What a row of a larger turn may cost, of what one of a smaller turn does: caches may be full."""


def impossible(turns: Turns) -> list[tuple[int, int]]:
    """Latency and rows of turns of which others say that they cannot have cost so much."""
    most = {latency: dict(pairs) for latency, pairs in sound(turns).items()}
    return [
        (latency, rows)
        for latency, pairs in turns.items()
        for rows, seconds in pairs
        if seconds > most[latency][rows] * TOLERANCE
    ]


def doubtful(turns: Turns) -> list[tuple[int, int]]:
    """The same, and those that are dear beside turns of fewer rows: they may be, but others may have been at work."""
    dear = [
        (latency, rows)
        for latency, pairs in turns.items()
        for (fewer, less), (rows, seconds) in pairwise(pairs)
        if seconds > less * rows / fewer * LOSS
    ]
    return sorted({*dear, *impossible(turns)})


def sound(turns: Turns) -> Turns:
    """As cheap as all of them together say; for every latency at the same rows."""
    table = _filled(turns)
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


def _filled(turns: Turns) -> dict[int, dict[int, float]]:
    """By latency and rows, also of those that were measured at another latency alone."""
    costs = StepCosts()
    for latency, pairs in turns.items():
        for rows, seconds in pairs:
            costs.plan(latency, rows, seconds)
    sizes = {rows for pairs in turns.values() for rows, _ in pairs}
    return {
        latency: {rows: costs.guess(latency, rows) for rows in sizes} | dict(pairs) for latency, pairs in turns.items()
    }


def with_turn(turns: Turns, latency: int, rows: int, seconds: float) -> Turns:
    """With one more: the quickest of a size tells what it costs."""
    sizes = dict(turns[latency])
    sizes[rows] = min(sizes.get(rows, seconds), seconds)
    return turns | {latency: sorted(sizes.items())}
