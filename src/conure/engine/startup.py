"""A plan becomes an engine: models are opened, rows allocated, and it is measured what the machine holds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from conure.engine.backends.device import (
    Device,
    error_summary,
    free_bytes,
    is_out_of_memory,
    limit_gpu_memory,
    release_cached_memory,
)
from conure.engine.backends.registry import OpenedModel, choose_device, default_cache_folder, open_model
from conure.engine.calibration import measure
from conure.engine.calibration_cache import CalibrationCache
from conure.engine.lanes.clip_lane import ClipLane
from conure.engine.lanes.lane import StreamingLane
from conure.engine.lanes.segment_lane import SegmentLane
from conure.engine.lanes.stream_lane import StreamLane
from conure.engine.lanes.window_lane import WindowLane
from conure.engine.loop import Engine
from conure.engine.memory.needs import need_of
from conure.engine.memory.plan import Grant, Need, least, share, table
from conure.engine.messages import Answer, Note
from conure.engine.plan import ModelInfo, Plan
from conure.engine.recalibration import CalibratedModel, Recalibration
from conure.engine.step_costs import StepCosts
from conure.errors import OutOfMemory
from conure.vad.silero import load_silero

__all__ = ["Lanes", "build_lanes", "start_engine"]

log = logging.getLogger(__name__)

MEMORY = 0.25
"""Of the memory that is free, for the rows of live models."""
CARD_MEMORY = 0.9
"""The same of a card, for everything; the rest is for kernels and for what lies between tensors."""

Begin = Callable[[str], None]
"""Told of each step of the start, which may take minutes."""


def _nobody(_: str) -> None:
    """Wants to know."""


class Lanes:
    """What an engine is built from."""

    def __init__(self) -> None:
        self.live: dict[str, StreamingLane] = {}
        self.clips: dict[str, ClipLane] = {}
        self.cards: list[ModelInfo] = []
        self.sources: dict[str, Path] = {}
        """Of live models on the CPU, what their networks were read from."""


def build_lanes(plan: Plan, begin: Begin = _nobody) -> Lanes:
    """Raises what opening a model raises, and OutOfMemory."""
    lanes, device = Lanes(), choose_device(plan.device, plan.runner)
    budget = _on_card(device, plan)
    models = {asked: _open(asked, plan, begin) for asked in dict.fromkeys(plan.live + plan.clips)}
    begin("sharing the memory out")
    release_cached_memory()
    needs = [need_of(opened, asked, plan) for asked, opened in models.items()]
    grants = _grants(budget or _on_cpu(device, needs), needs)
    for (asked, opened), grant in zip(models.items(), grants, strict=True):
        lanes.cards.append(_card(opened, asked, plan, grant, lanes))
    return lanes


def _on_card(device: Device, plan: Plan) -> int:
    """Bytes of a card for everything; 0 of a CPU."""
    if device.type == "cpu":
        return 0
    budget = int(free_bytes(device) * (plan.device_memory or CARD_MEMORY))
    if plan.device_memory:
        limit_gpu_memory(device, budget)
    return budget


def _on_cpu(device: Device, needs: Sequence[Need]) -> int:
    """Bytes for rows. What was asked for is granted: it takes memory only when it is used."""
    return max(int(free_bytes(device) * MEMORY), least(needs))


def _open(asked: str, plan: Plan, begin: Begin) -> OpenedModel:
    begin(f"opening {asked}")
    try:
        return open_model(asked, plan, live=asked in plan.live, clips=asked in plan.clips)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        message = f"the weights of {asked} do not fit the memory of the device: {error_summary(error)}"
    raise OutOfMemory(message, "take a smaller model, or fewer models")


def _grants(budget: int, needs: Sequence[Need]) -> list[Grant]:
    grants = share(budget, needs)
    for line in table(budget, grants):
        log.info("memory: %s", line)
    return grants


def _card(opened: OpenedModel, asked: str, plan: Plan, grant: Grant, lanes: Lanes) -> ModelInfo:
    checkpoint = opened.checkpoint
    card = ModelInfo(
        name=asked if any(card.name == checkpoint.name for card in lanes.cards) else checkpoint.name,
        asked=asked,
        tokenizer_file=checkpoint.tokenizer.file_name,
        tokenizer=checkpoint.tokenizer.data,
        vocabulary=checkpoint.config.vocabulary,
        languages=checkpoint.languages,
        prompt_ids=checkpoint.config.prompt_ids,
        runner=opened.description,
    )
    if asked in plan.live:
        lane = lanes.live[card.name] = _live_lane(opened, grant.rows)
        if opened.device.type == "cpu":
            lanes.sources[card.name] = Path(checkpoint.source)
        card = replace(card, latencies=lane.latencies, slots=lane.capacity)
    if asked in plan.clips:
        lanes.clips[card.name] = _clip_lane(opened, grant)
        card = replace(card, clips=True)
    return card


def _clip_lane(opened: OpenedModel, grant: Grant) -> ClipLane:
    assert opened.clip_runner is not None
    if opened.device.type != "cpu":
        from conure.engine.backends.cuda.prepare import capture_clip_decoder  # noqa: PLC0415  it loads torch

        capture_clip_decoder(opened.clip_runner)
    if grant.need.clips is None:
        return ClipLane(opened.clip_runner)
    return ClipLane(opened.clip_runner, grant.seconds, grant.most_clips)


def _live_lane(opened: OpenedModel, slots: int) -> StreamingLane:
    """The lane that fits the network: cache-aware, with windows, or whole utterances."""
    tokenizer = opened.checkpoint.tokenizer
    if opened.cuda_model is not None:
        from conure.engine.backends.cuda.prepare import open_cuda_lane  # noqa: PLC0415  it loads torch

        return open_cuda_lane(opened.cuda_model, slots, tokenizer)
    if opened.stream_runner is not None:
        return StreamLane(opened.stream_runner, load_silero(), slots, tokenizer)
    if opened.window_runner is not None:
        return WindowLane(opened.window_runner, load_silero(), slots, tokenizer)
    assert opened.clip_runner is not None
    return SegmentLane(opened.clip_runner, load_silero(), tokenizer, slots)


def start_engine(
    plan: Plan, deliver: Callable[[list[Answer | Note]], None], begin: Begin = _nobody
) -> tuple[Engine, list[ModelInfo]]:
    """An engine that knows what its turns cost; its `run` is the caller's. Raises what opening a model raises."""
    lanes, costs, measured = build_lanes(plan, begin), StepCosts(), {}
    for place, card in enumerate(lanes.cards):
        if card.latencies:
            begin(f"measuring {card.name}")
            measured[place] = _measured(card, lanes, plan, costs)
    on_cpu = [model for model in measured.values() if model.card.name in lanes.sources]
    look = Recalibration(on_cpu, costs, time.monotonic()) if on_cpu else None
    cards = [measured[place].card if place in measured else card for place, card in enumerate(lanes.cards)]
    return Engine(lanes.live, lanes.clips, deliver, costs=costs, look=look), cards


def _measured(card: ModelInfo, lanes: Lanes, plan: Plan, costs: StepCosts) -> CalibratedModel:
    lane, source = lanes.live[card.name], lanes.sources.get(card.name)
    kept = CalibrationCache.of(plan.cache or default_cache_folder(), source, card, lane.capacity) if source else None
    card, turns = measure(card, lane, costs, kept)
    return CalibratedModel(card, lane, turns, kept)
