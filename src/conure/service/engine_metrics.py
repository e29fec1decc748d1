"""What is counted of the engine itself: by one process, however many ask it."""

from __future__ import annotations

from functools import partial

from conure import metrics
from conure.engine.client import EngineClient
from conure.engine.messages import StepTaken

__all__ = ["register_engine_metrics"]


def register_engine_metrics(handle: EngineClient) -> None:
    """From now on. The engine must have started."""
    handle.on_turn = _count
    metrics.ENGINE_RESTARTS.set_function(lambda: handle.restarts)
    for number, card in enumerate(handle.cards):
        for place, latency in enumerate(card.latencies):
            metrics.CAPACITY.labels(card.name, latency).set_function(partial(_capacity, handle, number, place))


def _capacity(handle: EngineClient, card: int, place: int) -> float:
    """Of a later engine, or after another look, it may be another one."""
    return handle.cards[card].capacity[place]


def _count(turn: StepTaken) -> None:
    live = turn.latency_ms is not None
    metrics.STEP_SECONDS.labels(turn.model, "live" if live else "clips").observe(turn.seconds)
    if live:
        metrics.BATCH_ROWS.labels(turn.model).observe(turn.rows)
    for stage, seconds in turn.stages.items():
        metrics.STAGE_SECONDS.labels(turn.model, stage).inc(seconds)
    metrics.CLIPS_WAITING.set(turn.clips)
