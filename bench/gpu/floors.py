"""The least that some work takes on an H200, beside what it took: see `bench.operations`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.operations import Work

__all__ = ["COLUMNS", "beside"]

COLUMNS = ("floor ms", "Tflop", "GB", "times floor")
"""On whatever device the work was measured, the floor is an H200's."""
WRITTEN = "attention, bias written"
"""A stage that another one takes the place of."""


def beside(seconds: float, stages: Mapping[str, Work], only: Sequence[str] = ()) -> tuple[str, ...]:
    """Cells for COLUMNS: of all stages, or of some."""
    works = [work for name, work in stages.items() if name != WRITTEN and (not only or name in only)]
    least = sum(work.seconds for work in works)
    operations, moved = sum(work.operations for work in works), sum(work.bytes for work in works)
    return f"{least * 1e3:.2f}", f"{operations / 1e12:.3f}", f"{moved / 1e9:.2f}", f"{seconds / least:.1f}"
