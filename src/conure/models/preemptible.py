"""Long computations in short slices, so that more urgent work can run in between."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

__all__ = ["Preemptible", "run_to_end"]

Result = TypeVar("Result")
Preemptible = Generator[None, None, Result]
"""A generator that yields after each slice and returns its result."""


def run_to_end(slices: Preemptible[Result]) -> Result:
    """Runs all remaining slices and returns the result."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            result: Result = end.value
            return result
