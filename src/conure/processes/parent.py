"""A server of several processes: one engine, N server processes that hold connections, and the parent that runs them.

    clients ══ shared ports ══> server process 1 ─┐  Unix socket, shared memory
                                server process 2 ─┼──────────────────────────> engine
    parent: a socket pair to each of them ────────┘

SIGTERM or Ctrl-C   accept no new streams; end when the open ones have finished
the second signal   end at once

Server processes that die are restarted. If the parent dies, the others end when their control sockets close.
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
"""The parent sends no audio, so its ring is minimal."""
CLOSING_SECONDS = 1.0
"""Time to notify clients that the engine is gone."""


async def supervise(settings: Settings, plan: Plan, processes: int, on_ready: Callable[[ServerInfo], None]) -> None:
    """Runs until it is stopped by a signal. Raises ConureError if the server cannot start or fails."""
    if sys.platform != "linux":
        raise BadOption(f"--processes {processes} requires Linux (SO_REUSEPORT)", "use --processes 1")
    with contextlib.ExitStack() as stack:
        numbers = {
            name: stack.enter_context(reserve_port(settings.host, getattr(settings, name), name)) for name in PORTS
        }
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conure-")))
        identity = ProcessIdentity(process_count=processes, socket_folder=folder)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(identity.engine_socket))
        listener.listen(2 * processes)
        resolved = settings.model_copy(update={name: number or 0 for name, number in numbers.items()})
        ports = Ports(**{PORTS[name]: number for name, number in numbers.items()})
        await _run(resolved, plan, identity, listener, lambda models: on_ready(server_info(resolved, models, ports)))


async def _run(
    settings: Settings, plan: Plan, identity: ProcessIdentity, listener: socket.socket, on_ready: Callable[..., None]
) -> None:
    started_at, draining = time.monotonic(), asyncio.Event()
    engine = EngineClient(ProcessTransport(plan, listener, RING_SAMPLES, settings.start_seconds))

    def build_status(streams: int, families: list[Family]) -> StatusResponse:
        processes = {"server": os.getpid()} | supervisor.process_ids
        report = status_report(engine, started_at, streams, processes, draining=draining.is_set())
        return StatusResponse(0, report, families)

    supervisor = Supervisor(settings, plan, identity, build_status)
    engine_start = start_task(engine.start(), "starting the engine")
    servers_start = start_task(_start_after_engine(supervisor.start), "starting server processes")
    try:
        await asyncio.wait((engine_start, servers_start), return_when=asyncio.FIRST_EXCEPTION)
        for task in (engine_start, servers_start):  # the engine first: its error is the cause of the other one
            if task.done():
                task.result()
        register_engine_metrics(engine)
        freeze_heap()
        on_ready(engine.model_infos)
        await _run_until_stopped(supervisor, engine, draining, settings.drain_seconds)
    finally:
        for task in (engine_start, servers_start):
            task.cancel()
        await asyncio.gather(engine_start, servers_start, return_exceptions=True)
        await supervisor.stop()
        await engine.stop()


async def _start_after_engine(start: Callable[[], Awaitable[None]]) -> None:
    """Lets the task that starts the engine run first: it takes longest."""
    await asyncio.sleep(0)
    await start()


async def _run_until_stopped(
    supervisor: Supervisor, engine: EngineClient, draining: asyncio.Event, drain_seconds: float
) -> None:
    """Raises ConureError if the engine or all server processes are gone for good."""
    signals: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, None)
    stop_signal = start_task(signals.get(), "waiting for a signal")
    engine_failure = start_task(engine.wait_for_failure(), "waiting for the engine's end")
    await asyncio.wait((stop_signal, engine_failure, supervisor.failed), return_when=asyncio.FIRST_COMPLETED)
    engine_failure.cancel()
    if supervisor.failed.done():
        stop_signal.cancel()
        supervisor.failed.result()
    if engine_failure.done():
        stop_signal.cancel()
        await supervisor.drain(CLOSING_SECONDS)  # notifies clients
        raise engine_failure.result()
    draining.set()
    open_streams = (await supervisor.collect_status()).status["streams"]
    log.warning("stopping: %d streams are open and may go on for %g s", open_streams, drain_seconds)
    second_signal = start_task(signals.get(), "waiting for another signal")
    drained = start_task(supervisor.drain(drain_seconds), "draining")
    await asyncio.wait((second_signal, drained), return_when=asyncio.FIRST_COMPLETED)
    for task in (second_signal, drained):
        task.cancel()
