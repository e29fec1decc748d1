"""The memory that a model needs on its device.

On a GPU that is all of its memory. On a CPU it is the slots of live streams only: other programs use the memory, too,
and slots that were never used take none.
"""

from __future__ import annotations

from conure.engine.backends.registry import OpenedModel
from conure.engine.memory.plan import ModelNeed, StreamNeed
from conure.engine.plan import Plan

__all__ = ["model_need"]

MAX_SLOTS = 1024


def model_need(opened: OpenedModel, model: str, plan: Plan) -> ModelNeed:
    """`model`: its name in the plan."""
    if opened.device.type == "cpu":
        return ModelNeed(model, 0, _cpu_stream_need(opened, plan) if model in plan.live_models else None)
    from conure.engine.memory.cuda import gpu_model_need  # noqa: PLC0415  it loads torch

    return gpu_model_need(opened, model, plan)


def _cpu_stream_need(opened: OpenedModel, plan: Plan) -> StreamNeed:
    slot: int = opened.stream_runner.allocate(1).encoder.bytes if opened.stream_runner else 0
    return StreamNeed(slot, MAX_SLOTS, plan.max_streams)
