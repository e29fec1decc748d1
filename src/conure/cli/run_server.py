"""A server from its settings to its end. The engine loads what it needs while this process loads the web framework."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from conure.background import log_unhandled_errors, start_task
from conure.cli.downloads import ensure_on_disk
from conure.engine.client import EngineClient
from conure.engine.ipc.transport import ProcessTransport
from conure.engine.plan import Plan
from conure.event_loop import new_event_loop
from conure.service.bind_policy import bind_settings
from conure.service.engine_plan import plan_from_settings, server_process_count
from conure.settings import Settings

if TYPE_CHECKING:
    from conure.service.server_info import ServerInfo

__all__ = ["run"]

Announce = Callable[["ServerInfo", Settings, float], None]
"""Told of the server when it is ready, and after how many seconds."""


def run(settings: Settings, announce: Announce) -> None:
    """Until it is told to stop. Raises ConureError where it cannot start."""
    settings, plan = bind_settings(settings), plan_from_settings(settings)
    for name in dict.fromkeys(plan.live + plan.clips):
        ensure_on_disk(name)  # with a bar, before the engine looks for it
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_run(settings, plan, announce))


async def _run(settings: Settings, plan: Plan, announce: Announce) -> None:
    begun, processes = time.monotonic(), server_process_count(settings)
    log_unhandled_errors(asyncio.get_running_loop())

    def on_ready(serving: ServerInfo) -> None:
        announce(serving, settings, time.monotonic() - begun)

    if processes == 1:
        await _run_one(settings, plan, on_ready)
        return
    from conure.processes.parent import supervise  # noqa: PLC0415  servers of one process do without

    await supervise(settings, plan, processes, on_ready)


async def _run_one(settings: Settings, plan: Plan, on_ready: Callable[[ServerInfo], None]) -> None:
    handle = EngineClient(ProcessTransport(plan, start_seconds=settings.start_seconds))
    engine = start_task(handle.start(), "starting the engine")
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
