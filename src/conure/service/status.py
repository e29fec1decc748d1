"""Status of the server, as the protocols report it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import psutil

from conure import metrics
from conure.engine.client import EngineClient

if TYPE_CHECKING:
    from conure.service.live_service import LiveService

__all__ = ["ProcessStatus", "Status", "status_report", "memory_usage"]


class Status(Protocol):
    @property
    def is_ready(self) -> bool:
        """Whether new streams are accepted."""
        ...

    async def report(self) -> dict[str, Any]:
        """Raises Busy where that cannot be found out."""
        ...

    async def render_metrics(self) -> bytes:
        """In the text format of Prometheus. Raises Busy."""
        ...


class ProcessStatus:
    """Status of a server of one process."""

    def __init__(self, live: LiveService) -> None:
        self._live = live
        self._started_at = time.monotonic()

    @property
    def is_ready(self) -> bool:
        return self._live.engine.is_ready and not self._live.is_draining

    async def report(self) -> dict[str, Any]:
        live = self._live
        return status_report(
            live.engine, self._started_at, len(live), {"server": os.getpid()}, draining=live.is_draining
        )

    async def render_metrics(self) -> bytes:
        return metrics.render(metrics.collect())


def status_report(
    engine: EngineClient, started_at: float, streams: int, processes: dict[str, int], *, draining: bool
) -> dict[str, Any]:
    """`started_at`: monotonic clock at the start. `processes`: ids of all processes but the engine."""
    ids = processes | ({"engine": engine.process_id} if engine.process_id else {})
    return {
        "status": "draining" if draining else "ready" if engine.is_ready else "restarting",
        "ready": engine.is_ready and not draining,
        "streams": streams,
        "uptime_seconds": round(time.monotonic() - started_at, 1),
        "engine_restarts": engine.restarts,
        "processes": ids,
        "memory": memory_usage(ids),
        "models": [
            {
                "name": model.name,
                "live": bool(model.latencies),
                "clips": model.supports_clips,
                "runner": model.runner,
                "languages": list(model.languages),
                "streams": dict(zip(map(str, model.latencies), model.capacity, strict=True)),
            }
            for model in engine.model_infos
        ],
    }


def memory_usage(processes: Mapping[str, int]) -> dict[str, int]:
    """Resident bytes of each process, shared memory included; processes that have just ended are left out."""
    memory = {}
    for name, pid in processes.items():
        with contextlib.suppress(psutil.Error):
            memory[name] = psutil.Process(pid).memory_info().rss
    return memory
