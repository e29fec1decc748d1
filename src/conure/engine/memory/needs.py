"""What models need of their device's memory, for the plan of it.

On a card that is everything. On a CPU it is the rows of live streams alone: what else there is comes and goes, other
programs too, and rows that were never used take no memory.
"""

from __future__ import annotations

from conure.engine.backends.registry import OpenedModel
from conure.engine.memory.plan import Need, Streams
from conure.engine.plan import Plan

__all__ = ["need_of"]

MOST_SLOTS = 1024


def need_of(opened: OpenedModel, model: str, plan: Plan) -> Need:
    """Of a model that was asked for by that name."""
    if opened.device.type == "cpu":
        return Need(model, 0, _rows_of(opened, plan) if model in plan.live else None)
    from conure.engine.memory.cuda import need_of_card  # noqa: PLC0415  it loads torch

    return need_of_card(opened, model, plan)


def _rows_of(opened: OpenedModel, plan: Plan) -> Streams:
    """As the runner has them."""
    row: int = opened.stream_runner.allocate(1).encoder.bytes if opened.stream_runner else 0
    return Streams(row, MOST_SLOTS, plan.slots)
