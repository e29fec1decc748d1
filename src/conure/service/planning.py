"""Settings to what the engine is to hold."""

from __future__ import annotations

import os
import sys

from conure.engine.plan import Plan
from conure.service.models import live_name
from conure.settings import Settings

__all__ = ["plan_of", "processes_of"]

CORES_OF_A_PROCESS = 4
"""The others are for the engine, and for what else runs there."""


def plan_of(settings: Settings) -> Plan:
    """The models that are to be loaded; `tiny` stands for both tiny ones."""
    live, clips = _names(settings.live), _names(settings.clips or settings.model)
    return Plan(
        live=tuple(live_name(name) for name in live),
        clips=clips,
        device=settings.device,
        runner=settings.runner,
        threads=settings.threads,
        cache=settings.cache,
        slots=settings.slots,
        device_memory=settings.device_memory,
    )


def processes_of(settings: Settings) -> int:
    """That hold connections."""
    if settings.processes is not None:
        return settings.processes
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    return max(cores // CORES_OF_A_PROCESS, 1)


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())
