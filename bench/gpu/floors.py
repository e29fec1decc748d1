"""Lower bounds of times on an H200, compared with measured times: see `bench.operations`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.operations import Work

__all__ = ["COLUMNS", "floor_cells"]

COLUMNS = ("floor ms", "Tflop", "GB", "times floor")
"""The floor is an H200's, whatever the measured device."""
WRITTEN = "attention, bias written"
"""An alternative to the stage "attention", not counted here."""


def floor_cells(seconds: float, stages: Mapping[str, Work], only: Sequence[str] = ()) -> tuple[str, ...]:
    """Cells for COLUMNS, for all stages or those in `only`."""
    works = [work for name, work in stages.items() if name != WRITTEN and (not only or name in only)]
    least = sum(work.seconds for work in works)
    operations, moved = sum(work.operations for work in works), sum(work.bytes for work in works)
    return f"{least * 1e3:.2f}", f"{operations / 1e12:.3f}", f"{moved / 1e9:.2f}", f"{seconds / least:.1f}"
