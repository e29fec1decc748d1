"""Builds an engine from a plan: opens the models, divides the memory, and calibrates the step costs."""

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
from conure.engine.calibration import calibrate
from conure.engine.calibration_cache import CalibrationCache
from conure.engine.lanes.clip_lane import ClipLane
from conure.engine.lanes.lane import StreamingLane
from conure.engine.lanes.segment_lane import SegmentLane
from conure.engine.lanes.stream_lane import StreamLane
from conure.engine.lanes.window_lane import WindowLane
from conure.engine.loop import Engine
from conure.engine.memory.needs import model_need
from conure.engine.memory.plan import MemoryGrant, ModelNeed, divide_memory, memory_table, total_min_bytes
from conure.engine.messages import EngineEvent, StreamEvent
from conure.engine.plan import ModelInfo, Plan
from conure.engine.recalibration import CalibratedModel, Recalibration
from conure.engine.step_costs import StepCosts
from conure.errors import OutOfMemory
from conure.vad.silero import load_silero

__all__ = ["Lanes", "build_lanes", "start_engine"]

log = logging.getLogger(__name__)

CPU_MEMORY_FRACTION = 0.25
"""Fraction of the free memory for the slots of live models."""
GPU_MEMORY_FRACTION = 0.9
"""Fraction of a GPU's free memory for everything; the rest is for kernels and for fragmentation."""

ReportStep = Callable[[str], None]
"""Called at the begin of each step of the start; a step may take minutes."""


def _ignore_step(_: str) -> None:
    pass


class Lanes:
    """The lanes of an engine, by model."""

    def __init__(self) -> None:
        self.live: dict[str, StreamingLane] = {}
        self.clips: dict[str, ClipLane] = {}
        self.model_infos: list[ModelInfo] = []
        self.sources: dict[str, Path] = {}
        """The files of live models on the CPU."""


def build_lanes(plan: Plan, report_step: ReportStep = _ignore_step) -> Lanes:
    """Raises the errors of opening a model, and OutOfMemory."""
    lanes, device = Lanes(), choose_device(plan.device, plan.runner)
    budget = _gpu_budget(device, plan)
    models = {name: _open(name, plan, report_step) for name in dict.fromkeys(plan.live_models + plan.clip_models)}
    report_step("sharing the memory out")
    release_cached_memory()
    needs = [model_need(opened, name, plan) for name, opened in models.items()]
    grants = _grants(budget or _cpu_budget(device, needs), needs)
    for (name, opened), grant in zip(models.items(), grants, strict=True):
        lanes.model_infos.append(_add_lanes(opened, name, plan, grant, lanes))
    return lanes


def _gpu_budget(device: Device, plan: Plan) -> int:
    """Bytes of a GPU for everything; 0 for a CPU."""
    if device.type == "cpu":
        return 0
    budget = int(free_bytes(device) * (plan.device_memory or GPU_MEMORY_FRACTION))
    if plan.device_memory:
        limit_gpu_memory(device, budget)
    return budget


def _cpu_budget(device: Device, needs: Sequence[ModelNeed]) -> int:
    """Bytes for slots. A configured number of slots is always granted: unused slots take no memory."""
    return max(int(free_bytes(device) * CPU_MEMORY_FRACTION), total_min_bytes(needs))


def _open(name: str, plan: Plan, report_step: ReportStep) -> OpenedModel:
    report_step(f"opening {name}")
    try:
        return open_model(name, plan, live=name in plan.live_models, clips=name in plan.clip_models)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        message = f"the weights of {name} do not fit the memory of the device: {error_summary(error)}"
    raise OutOfMemory(message, "use a smaller model, or fewer models")


def _grants(budget: int, needs: Sequence[ModelNeed]) -> list[MemoryGrant]:
    grants = divide_memory(budget, needs)
    for line in memory_table(budget, grants):
        log.info("memory: %s", line)
    return grants


def _add_lanes(opened: OpenedModel, name: str, plan: Plan, grant: MemoryGrant, lanes: Lanes) -> ModelInfo:
    checkpoint = opened.checkpoint
    info = ModelInfo(
        name=name if any(info.name == checkpoint.name for info in lanes.model_infos) else checkpoint.name,
        requested_name=name,
        tokenizer_file=checkpoint.tokenizer.file_name,
        tokenizer=checkpoint.tokenizer.data,
        vocabulary=checkpoint.config.vocabulary,
        languages=checkpoint.languages,
        prompt_ids=checkpoint.config.prompt_ids,
        runner=opened.description,
    )
    if name in plan.live_models:
        lane = lanes.live[info.name] = _streaming_lane(opened, grant.slots)
        if opened.device.type == "cpu":
            lanes.sources[info.name] = Path(checkpoint.source)
        info = replace(info, latencies=lane.latencies, max_streams=lane.capacity)
    if name in plan.clip_models:
        lanes.clips[info.name] = _clip_lane(opened, grant)
        info = replace(info, supports_clips=True)
    return info


def _clip_lane(opened: OpenedModel, grant: MemoryGrant) -> ClipLane:
    assert opened.clip_runner is not None
    if opened.device.type != "cpu":
        from conure.engine.backends.cuda.prepare import capture_clip_decoder  # noqa: PLC0415  it loads torch

        capture_clip_decoder(opened.clip_runner)
    if grant.need.clips is None:
        return ClipLane(opened.clip_runner)
    return ClipLane(opened.clip_runner, grant.batch_seconds, grant.max_clips)


def _streaming_lane(opened: OpenedModel, slots: int) -> StreamingLane:
    """The lane for the network: cache-aware, with windows, or with whole utterances."""
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
    plan: Plan, deliver: Callable[[list[StreamEvent | EngineEvent]], None], report_step: ReportStep = _ignore_step
) -> tuple[Engine, list[ModelInfo]]:
    """A calibrated engine; the caller calls its `run`. Raises the errors of opening a model, and OutOfMemory."""
    lanes, costs, calibrated = build_lanes(plan, report_step), StepCosts(), {}
    for index, info in enumerate(lanes.model_infos):
        if info.latencies:
            report_step(f"measuring {info.name}")
            calibrated[index] = _calibrate(info, lanes, plan, costs)
    on_cpu = [model for model in calibrated.values() if model.info.name in lanes.sources]
    recalibration = Recalibration(on_cpu, costs, time.monotonic()) if on_cpu else None
    models = [calibrated[index].info if index in calibrated else info for index, info in enumerate(lanes.model_infos)]
    return Engine(lanes.live, lanes.clips, deliver, costs=costs, recalibration=recalibration), models


def _calibrate(info: ModelInfo, lanes: Lanes, plan: Plan, costs: StepCosts) -> CalibratedModel:
    lane, source = lanes.live[info.name], lanes.sources.get(info.name)
    folder = plan.cache_folder or default_cache_folder()
    cache = CalibrationCache.open(folder, source, info, lane.capacity) if source else None
    info, steps = calibrate(info, lane, costs, cache)
    return CalibratedModel(info, lane, steps, cache)
