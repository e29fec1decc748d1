"""A server of several processes: one engine, N that hold connections, and this one, which starts and ends them.

    clients ══ ports that all share ══> door 1 ─┐  Unix socket, shared memory
                                        door 2 ─┼──────────────────────────> engine
    parent: socket pairs to all of them ────────┘

SIGTERM or Ctrl-C   no new streams; those that are open finish, then all end
the same once more  all end at once

Who is killed is started again. When this process is killed the others end: their sockets do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from conure.background import start_task
from conure.engine.client import EngineClient
from conure.engine.ipc.transport import ProcessTransport
from conure.engine.plan import Plan
from conure.errors import BadOption
from conure.gc_freeze import freeze_heap
from conure.metrics import Family
from conure.processes.control_protocol import StatusResponse
from conure.processes.supervisor import Supervisor
from conure.service.engine_metrics import register_engine_metrics
from conure.service.process_identity import ProcessIdentity
from conure.service.server_info import PORTS, Ports, ServerInfo, server_info
from conure.service.shared_ports import reserve_port
from conure.service.status import status_report
from conure.settings import Settings

__all__ = ["supervise"]

log = logging.getLogger(__name__)

RING_SAMPLES = 1024
"""This process sends no audio."""
LAST_WORDS = 1.0
"""Seconds for clients to hear that there is no engine any more."""


async def supervise(settings: Settings, plan: Plan, processes: int, on_ready: Callable[[ServerInfo], None]) -> None:
    """Until it is told to stop. Raises ConureError where it cannot start, or could not go on."""
    if sys.platform != "linux":
        raise BadOption(f"{processes} processes need Linux, which deals connections out to them", "take one")
    with contextlib.ExitStack() as stack:
        numbers = {
            name: stack.enter_context(reserve_port(settings.host, getattr(settings, name), name)) for name in PORTS
        }
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conure-")))
        place = ProcessIdentity(process_count=processes, socket_folder=folder)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(place.engine_socket))
        listener.listen(2 * processes)
        fixed = settings.model_copy(update={name: number or 0 for name, number in numbers.items()})
        ports = Ports(**{PORTS[name]: number for name, number in numbers.items()})
        await _run(fixed, plan, place, listener, lambda models: on_ready(server_info(fixed, models, ports)))


async def _run(
    settings: Settings, plan: Plan, place: ProcessIdentity, listener: socket.socket, on_ready: Callable[..., None]
) -> None:
    since, draining = time.monotonic(), asyncio.Event()
    handle = EngineClient(ProcessTransport(plan, listener, RING_SAMPLES, settings.start_seconds))

    def answer(streams: int, measured: list[Family]) -> StatusResponse:
        processes = {"server": os.getpid()} | crew.processes
        return StatusResponse(0, status_report(handle, since, streams, processes, draining=draining.is_set()), measured)

    crew = Supervisor(settings, plan, place, answer)
    engine = start_task(handle.start(), "starting the engine")
    doors = start_task(_after_its_start(crew.start), "starting processes with connections")
    try:
        await asyncio.wait((engine, doors), return_when=asyncio.FIRST_EXCEPTION)
        for task in (engine, doors):  # what keeps the engine from starting keeps doors from opening
            if task.done():
                task.result()
        register_engine_metrics(handle)
        freeze_heap()
        on_ready(handle.cards)
        await _until_stopped(crew, handle, draining, settings.drain_seconds)
    finally:
        for task in (engine, doors):
            task.cancel()
        await asyncio.gather(engine, doors, return_exceptions=True)
        await crew.stop()
        await handle.stop()


async def _after_its_start(begin: Callable[[], Awaitable[None]]) -> None:
    """The engine has the longest way to go, so it goes first."""
    await asyncio.sleep(0)
    await begin()


async def _until_stopped(crew: Supervisor, handle: EngineClient, draining: asyncio.Event, drain_seconds: float) -> None:
    """Raises ConureError where there is no engine any more, or nobody who has connections."""
    asked: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.put_nowait, None)
    stopping = start_task(asked.get(), "waiting for a signal")
    lost = start_task(handle.until_failed(), "waiting for the engine's end")
    await asyncio.wait((stopping, lost, crew.failed), return_when=asyncio.FIRST_COMPLETED)
    lost.cancel()
    if crew.failed.done():
        stopping.cancel()
        crew.failed.result()
    if lost.done():
        stopping.cancel()
        await crew.drain(LAST_WORDS)  # clients hear of it
        raise lost.result()
    draining.set()
    open_now = (await crew.ask()).status["streams"]
    log.warning("stopping: %d streams are open and may go on for %g s", open_now, drain_seconds)
    at_once = start_task(asked.get(), "waiting for another signal")
    drained = start_task(crew.drain(drain_seconds), "draining")
    await asyncio.wait((at_once, drained), return_when=asyncio.FIRST_COMPLETED)
    for task in (at_once, drained):
        task.cancel()
