"""Settings to what the engine is to hold."""

from __future__ import annotations

import sys

from conure.cpu_count import processor_count
from conure.engine.backends.device import has_gpu_driver
from conure.engine.plan import Plan
from conure.service.model_directory import live_model_name
from conure.settings import Settings

__all__ = ["plan_from_settings", "server_process_count"]

CORES_BESIDE_A_CARD, CORES_OF_A_CPU = 2, 8
"""For each process. Where a card computes, the cores are for doors; where they compute themselves, one process has more
streams than eight of them hold of a large model."""


def plan_from_settings(settings: Settings) -> Plan:
    """The models that are to be loaded; `tiny` stands for both tiny ones."""
    live, clips = _names(settings.live_models), _names(settings.file_models or settings.model)
    return Plan(
        live=tuple(live_model_name(name) for name in live),
        clips=clips,
        device=settings.device,
        runner=settings.runner,
        threads=settings.threads,
        cache=settings.cache,
        slots=settings.max_streams,
        device_memory=settings.device_memory,
    )


def server_process_count(settings: Settings) -> int:
    """That hold connections."""
    if settings.processes is not None:
        return settings.processes
    if sys.platform != "linux":  # where connections are not dealt out
        return 1
    return max(processor_count() // (CORES_BESIDE_A_CARD if _is_on_card(settings) else CORES_OF_A_CPU), 1)


def _is_on_card(settings: Settings) -> bool:
    if settings.device == "auto":
        return has_gpu_driver() and not settings.runner.startswith("onnx")
    return settings.device != "cpu"


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())
