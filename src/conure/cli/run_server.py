"""A server from its settings to its end. The engine loads what it needs while this process loads the web framework."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from conure.background import start, watch_over
from conure.cli.downloads import ensure_on_disk
from conure.engine.client import EngineClient
from conure.engine.ipc.transport import ProcessTransport
from conure.engine.plan import Plan
from conure.event_loop import event_loop
from conure.service.bind_policy import bind_settings
from conure.service.engine_plan import plan_of, processes_of
from conure.settings import Settings

if TYPE_CHECKING:
    from conure.service.server_info import ServerInfo

__all__ = ["run"]

Announce = Callable[["ServerInfo", Settings, float], None]
"""Told of the server when it is ready, and after how many seconds."""


def run(settings: Settings, announce: Announce) -> None:
    """Until it is told to stop. Raises ConureError where it cannot start."""
    settings, plan = bind_settings(settings), plan_of(settings)
    for name in dict.fromkeys(plan.live + plan.clips):
        ensure_on_disk(name)  # with a bar, before the engine looks for it
    with asyncio.Runner(loop_factory=event_loop) as runner:
        runner.run(_run(settings, plan, announce))


async def _run(settings: Settings, plan: Plan, announce: Announce) -> None:
    begun, processes = time.monotonic(), processes_of(settings)
    watch_over(asyncio.get_running_loop())

    def on_ready(serving: ServerInfo) -> None:
        announce(serving, settings, time.monotonic() - begun)

    if processes == 1:
        await _run_one(settings, plan, on_ready)
        return
    from conure.processes.parent import supervise  # noqa: PLC0415  servers of one process do without

    await supervise(settings, plan, processes, on_ready)


async def _run_one(settings: Settings, plan: Plan, on_ready: Callable[[ServerInfo], None]) -> None:
    handle = EngineClient(ProcessTransport(plan, start_seconds=settings.start_seconds))
    engine = start(handle.start(), "starting the engine")
    try:
        server = await asyncio.to_thread(import_module, "conure.server")
        await engine
    except BaseException:
        if not engine.done():
            engine.cancel()
            await asyncio.gather(engine, return_exceptions=True)
            await handle.stop()
        raise
    await server.serve(settings, handle, plan, on_ready)
