"""Settings -> the models that the engine loads, and the number of server processes."""

from __future__ import annotations

import sys

from conure.cpu_count import processor_count
from conure.engine.backends.device import has_gpu_driver
from conure.engine.plan import Plan
from conure.service.model_directory import live_model_name
from conure.settings import Settings

__all__ = ["plan_from_settings", "server_process_count"]

PROCESSORS_WITH_GPU, PROCESSORS_WITHOUT_GPU = 2, 8
"""Processors per server process. With a GPU all processors serve connections; without one, a single server process
handles more streams than eight processors can compute of a large model."""


def plan_from_settings(settings: Settings) -> Plan:
    """The models to load; `tiny` means both tiny models."""
    live, clips = _names(settings.live_models), _names(settings.file_models or settings.model)
    return Plan(
        live_models=tuple(live_model_name(name) for name in live),
        clip_models=clips,
        device=settings.device,
        runner=settings.runner,
        threads=settings.threads,
        cache_folder=settings.cache,
        max_streams=settings.max_streams,
        device_memory=settings.device_memory,
    )


def server_process_count(settings: Settings) -> int:
    """Processes that hold connections."""
    if settings.processes is not None:
        return settings.processes
    if sys.platform != "linux":  # no distribution of connections among processes
        return 1
    return max(processor_count() // (PROCESSORS_WITH_GPU if _uses_gpu(settings) else PROCESSORS_WITHOUT_GPU), 1)


def _uses_gpu(settings: Settings) -> bool:
    if settings.device == "auto":
        return has_gpu_driver() and not settings.runner.startswith("onnx")
    return settings.device != "cpu"


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())
