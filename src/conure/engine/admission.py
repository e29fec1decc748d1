"""Admission: whether the machine has time for one more stream. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

from conure.engine.step_costs import StepCosts

__all__ = ["MAX_LOAD", "capacity", "load"]

Kind = TypeVar("Kind", bound=Hashable)

MAX_LOAD = 0.92
"""Fraction of real time for streams; the rest is for bursts and for other programs on the machine."""


def load(costs: StepCosts, streams: Mapping[Kind, int], chunk_seconds: Mapping[Kind, float]) -> float:
    """Fraction of real time that the streams take: for each kind, one step with all its streams once a chunk.

    Streams of a kind share steps: under load they wait for one another, so the cost of all of them at once counts.
    """
    return sum(costs.estimate(kind, count) / chunk_seconds[kind] for kind, count in streams.items() if count)


def capacity(costs: StepCosts, kind: Hashable, chunk_seconds: float, max_streams: int) -> int:
    """How many streams of one kind fit when there are no others; at most `max_streams`."""
    chunks = {kind: chunk_seconds}
    fitting = [count for count in range(1, max_streams + 1) if load(costs, {kind: count}, chunks) <= MAX_LOAD]
    return max(fitting, default=0)
