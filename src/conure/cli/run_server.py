"""Runs a server from its settings. The engine loads its models while this process imports the web framework."""

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
"""Called when the server is ready, with the seconds that it took to start."""


def run(settings: Settings, announce: Announce) -> None:
    """Runs until a signal stops it. Raises ConureError if it cannot start."""
    settings, plan = bind_settings(settings), plan_from_settings(settings)
    for name in dict.fromkeys(plan.live_models + plan.clip_models):
        ensure_on_disk(name)  # here with a progress bar; the engine would download without one
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_run(settings, plan, announce))


async def _run(settings: Settings, plan: Plan, announce: Announce) -> None:
    started_at, processes = time.monotonic(), server_process_count(settings)
    log_unhandled_errors(asyncio.get_running_loop())

    def on_ready(serving: ServerInfo) -> None:
        announce(serving, settings, time.monotonic() - started_at)

    if processes == 1:
        await _run_one(settings, plan, on_ready)
        return
    from conure.processes.parent import supervise  # noqa: PLC0415  a server of one process does not need it

    await supervise(settings, plan, processes, on_ready)


async def _run_one(settings: Settings, plan: Plan, on_ready: Callable[[ServerInfo], None]) -> None:
    engine_client = EngineClient(ProcessTransport(plan, start_seconds=settings.start_seconds))
    engine = start_task(engine_client.start(), "starting the engine")
    try:
        server = await asyncio.to_thread(import_module, "conure.server")
        await engine
    except BaseException:
        if not engine.done():
            engine.cancel()
            await asyncio.gather(engine, return_exceptions=True)
            await engine_client.stop()
        raise
    await server.serve(settings, engine_client, plan, on_ready)
