"""Whether the machine has time for one more stream. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

from conure.engine.step_costs import StepCosts

__all__ = ["MOST_LOAD", "capacity", "load"]

Kind = TypeVar("Kind", bound=Hashable)

MOST_LOAD = 0.92
"""Of the time there is; the rest is for what comes in bursts, and for others on the machine."""


def load(costs: StepCosts, streams: Mapping[Kind, int], seconds: Mapping[Kind, float]) -> float:
    """The part of the time that streams need: of each kind a number, and a turn for all of them once in a chunk.

    Streams of a kind share turns: where time is short they wait for one another, so what counts is the cost of all
    of them at once.
    """
    return sum(costs.guess(kind, count) / seconds[kind] for kind, count in streams.items() if count)


def capacity(costs: StepCosts, kind: Hashable, seconds: float, most: int) -> int:
    """Streams of one kind alone that fit, `most` at most."""
    fitting = [count for count in range(1, most + 1) if load(costs, {kind: count}, {kind: seconds}) <= MOST_LOAD]
    return max(fitting, default=0)
