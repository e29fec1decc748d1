"""A process that holds connections: an event loop, doors and sessions of its own, and a line to the engine.

It obeys its parent alone, and ends when that has gone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import shutil
import signal
import socket
from typing import Any

from conure import log as logs
from conure import metrics
from conure.background import log_unhandled_errors, report_failure, report_if_failed, start_task
from conure.engine.client import EngineClient
from conure.engine.ipc.transport import RING_SAMPLES, SocketTransport
from conure.engine.ipc.wire import Broken
from conure.engine.plan import Plan
from conure.errors import ConureError
from conure.event_loop import new_event_loop
from conure.json_stderr import redirect_stderr
from conure.parent_death import notice_parent_end
from conure.processes.control_protocol import (
    ControlChannel,
    Drain,
    Drained,
    LimitReached,
    Report,
    ReportRequest,
    ReportResponse,
    ServerOpened,
    StatusRequest,
    StatusResponse,
    Stop,
    UsageGranted,
    answer_of,
)
from conure.processes.shared_limits import SharedUsage
from conure.server import WEB, ProtocolServers, open_servers
from conure.service.live_service import LiveService
from conure.service.process_identity import ProcessIdentity
from conure.settings import Settings

__all__ = ["work"]

log = logging.getLogger(__name__)

LOOK = 0.05
LAST_WORDS = 2.0
"""Seconds for clients to hear that there is no engine any more, and for the first process to end all."""


def work(
    settings: Settings, plan: Plan, place: ProcessIdentity, end: socket.socket, logged: tuple[logs.Detail, bool]
) -> None:
    """Runs until the parent says so, or has gone."""
    notice_parent_end()
    for number in (signal.SIGINT, signal.SIGTERM):  # they may come to all of a group: the parent says what to do
        signal.signal(number, signal.SIG_IGN)
    detail, as_json = logged
    logs.configure(detail, as_json=as_json)
    if as_json:
        redirect_stderr()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_run(settings, plan, place, end))


async def _run(settings: Settings, plan: Plan, place: ProcessIdentity, end: socket.socket) -> None:
    log_unhandled_errors(asyncio.get_running_loop())
    parent = await ControlChannel.from_socket(end)
    handle = EngineClient(
        SocketTransport(place.engine_socket, place.number, place.share_of(RING_SAMPLES)), place.number
    )
    status, counts = _SharedStatus(parent, handle), SharedUsage(parent)
    hearing = start_task(_hear(parent, status, counts), "listening to the first process")
    work = _work(settings, plan, place, handle, status, counts, parent, hearing)
    working = start_task(work, "serving connections")
    await asyncio.wait((working, hearing), return_when=asyncio.FIRST_COMPLETED)
    if status.doors is None:
        working.cancel()
    await asyncio.wait([working])
    hearing.cancel()
    for ended in await asyncio.gather(working, hearing, return_exceptions=True):
        if isinstance(ended, Exception):
            log.error("this process of connections ends", exc_info=ended)
    await handle.stop()
    if not status.is_dismissed and place.socket_folder:
        shutil.rmtree(place.socket_folder, ignore_errors=True)  # the parent was killed
    parent.close()


async def _work(
    settings: Settings,
    plan: Plan,
    place: ProcessIdentity,
    handle: EngineClient,
    status: _SharedStatus,
    counts: SharedUsage,
    parent: ControlChannel,
    hearing: asyncio.Task[None],
) -> None:
    """Until nothing is to be heard of the parent any more."""
    try:
        await handle.start()
        async with open_servers(settings, handle, plan, place, status, counts) as doors:
            status.doors = doors
            parent.send(ServerOpened())
            lost = start_task(handle.until_failed(), "waiting for the engine's end")
            await asyncio.wait((doors.web_task, hearing, lost), return_when=asyncio.FIRST_COMPLETED)
            lost.cancel()
            if doors.web_task.done():
                raise report_failure(WEB, doors.web_task.exception())
            if lost.done():  # the first process knows better what to do: it has the engine
                await asyncio.wait((hearing,), timeout=LAST_WORDS)
                raise lost.result()
    except ConureError as error:
        status.is_dismissed = True
        parent.send(Broken(type(error).__name__, error.message, error.hint))


async def _hear(parent: ControlChannel, status: _SharedStatus, counts: SharedUsage) -> None:
    """Until it is told to stop, or there is nobody who could."""
    draining: asyncio.Task[None] | None = None
    while message := await parent.receive():
        match message:
            case ReportRequest(number):
                parent.send(ReportResponse(number, status.own()))
            case StatusResponse():
                status.take(message)
            case UsageGranted() | LimitReached():
                counts.take(message)
            case Drain(seconds):
                draining = start_task(_drain(status, parent, seconds), "draining")
                report_if_failed(draining, "draining")
            case Stop():
                status.is_dismissed = True
                break
    if draining:
        draining.cancel()


async def _drain(status: _SharedStatus, parent: ControlChannel, seconds: float) -> None:
    while status.doors is None:
        await asyncio.sleep(LOOK)  # it came for another one, and is still on its way
    await status.doors.drain(seconds)
    parent.send(Drained())


class _SharedStatus:
    """Of the whole server, which the parent knows."""

    def __init__(self, parent: ControlChannel, handle: EngineClient) -> None:
        self.doors: ProtocolServers | None = None
        self.is_dismissed = False
        """The parent knows that this process ends."""
        self._parent = parent
        self._handle = handle
        self._asked: dict[int, asyncio.Future[StatusResponse]] = {}
        self._numbers = itertools.count(1)

    @property
    def _live(self) -> LiveService | None:
        return self.doors.live if self.doors else None

    @property
    def is_ready(self) -> bool:
        return self._handle.is_ready and self._live is not None and not self._live.is_draining

    async def report(self) -> dict[str, Any]:
        told = await self._ask()
        return told.status

    async def render_metrics(self) -> bytes:
        return metrics.render((await self._ask()).measured)

    def own(self) -> Report:
        return Report(len(self._live) if self._live is not None else 0, metrics.collect())

    def take(self, answer: StatusResponse) -> None:
        asked = self._asked.pop(answer.number, None)
        if asked and not asked.done():
            asked.set_result(answer)

    async def _ask(self) -> StatusResponse:
        """Raises Busy."""
        number = next(self._numbers)
        answer: asyncio.Future[StatusResponse] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self._parent.send(StatusRequest(number))
            return await answer_of(answer)
        finally:
            self._asked.pop(number, None)
