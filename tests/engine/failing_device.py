"""An engine process whose device fails once, with torch's error, while it has streams."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from conure.engine.lanes.stream_lane import StreamLane
from conure.engine.main import run_engine_process
from conure.engine.messages import StreamEvent
from conure.engine.plan import Plan

__all__ = ["work_until_the_device_fails"]

STEPS = 6
"""That streams get before it fails; those that measure the machine before the first stream are not counted."""


def work_until_the_device_fails(plan: Plan, *rest: Any) -> None:
    """Replaces `transport._work`. A file in the plan's cache shows the next engine that the device has failed."""
    assert plan.cache_folder
    failed = plan.cache_folder / "device-failed"
    if not failed.exists():
        _break(failed)
    run_engine_process(plan, *rest)


def _break(failed: Path) -> None:
    run, steps = StreamLane.run, 0

    def failing(lane: StreamLane, numbers: Iterable[int], now: float) -> list[StreamEvent]:
        nonlocal steps
        steps += all(number > 0 for number in numbers)
        if steps > STEPS:
            failed.touch()
            kind = getattr(torch, "AcceleratorError", RuntimeError)
            raise kind("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA")
        return run(lane, numbers, now)

    StreamLane.run = failing  # type: ignore[method-assign]
