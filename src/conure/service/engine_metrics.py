"""Metrics of the engine itself. Only one process of a server counts them."""

from __future__ import annotations

from functools import partial

from conure import metrics
from conure.engine.client import EngineClient
from conure.engine.messages import StepTaken

__all__ = ["register_engine_metrics"]


def register_engine_metrics(engine: EngineClient) -> None:
    """Starts counting. The engine must have started."""
    engine.on_step = _count
    metrics.ENGINE_RESTARTS.set_function(lambda: engine.restarts)
    for number, model in enumerate(engine.model_infos):
        for index, latency in enumerate(model.latencies):
            metrics.CAPACITY.labels(model.name, latency).set_function(partial(_capacity, engine, number, index))


def _capacity(engine: EngineClient, model: int, latency: int) -> float:
    """Looked up each time: a restart or a recalibration may change it. `model`, `latency`: indices."""
    return engine.model_infos[model].capacity[latency]


def _count(step: StepTaken) -> None:
    is_live = step.latency_ms is not None
    metrics.STEP_SECONDS.labels(step.model, "live" if is_live else "clips").observe(step.seconds)
    if is_live:
        metrics.BATCH_ROWS.labels(step.model).observe(step.rows)
    for stage, seconds in step.stages.items():
        metrics.STAGE_SECONDS.labels(step.model, stage).inc(seconds)
    metrics.CLIPS_WAITING.set(step.pending_clips)
