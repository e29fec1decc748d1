"""How the server is: what doors tell of it, in one place."""

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
        """Whether streams are taken."""
        ...

    async def report(self) -> dict[str, Any]:
        """Raises Busy where that cannot be found out."""
        ...

    async def render_metrics(self) -> bytes:
        """In the text format of Prometheus. Raises Busy."""
        ...


class ProcessStatus:
    """Of a server of one process, and its engine."""

    def __init__(self, live: LiveService) -> None:
        self._live = live
        self._since = time.monotonic()

    @property
    def is_ready(self) -> bool:
        return self._live.engine.is_ready and not self._live.is_draining

    async def report(self) -> dict[str, Any]:
        live = self._live
        return status_report(live.engine, self._since, len(live), {"server": os.getpid()}, draining=live.is_draining)

    async def render_metrics(self) -> bytes:
        return metrics.render(metrics.collect())


def status_report(
    handle: EngineClient, since: float, streams: int, processes: dict[str, int], *, draining: bool
) -> dict[str, Any]:
    """`since`: the clock when the server began. `processes`: ids of those beside the engine."""
    engine = {"engine": handle.process} if handle.process else {}
    return {
        "status": "draining" if draining else "ready" if handle.is_ready else "restarting",
        "ready": handle.is_ready and not draining,
        "streams": streams,
        "uptime_seconds": round(time.monotonic() - since, 1),
        "engine_restarts": handle.restarts,
        "processes": processes | engine,
        "memory": memory_usage(processes | engine),
        "models": [
            {
                "name": card.name,
                "live": bool(card.latencies),
                "clips": card.clips,
                "runner": card.runner,
                "languages": list(card.languages),
                "streams": dict(zip(map(str, card.latencies), card.capacity, strict=True)),
            }
            for card in handle.cards
        ],
    }


def memory_usage(processes: Mapping[str, int]) -> dict[str, int]:
    """Bytes that each has, shared ones counted in each; without those that have just gone."""
    found = {}
    for name, number in processes.items():
        with contextlib.suppress(psutil.Error):
            found[name] = psutil.Process(number).memory_info().rss
    return found
