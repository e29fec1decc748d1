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
from conure.background import failed, note, start, watch_over
from conure.engine.client import EngineClient
from conure.engine.ipc.transport import RING_SAMPLES, SocketTransport
from conure.engine.ipc.wire import Broken
from conure.engine.plan import Plan
from conure.errors import ConureError
from conure.event_loop import event_loop
from conure.json_stderr import redirect_stderr
from conure.parent_death import notice_parent_end
from conure.processes.control_protocol import (
    All,
    Ask,
    ControlChannel,
    Drain,
    Drained,
    Granted,
    Opened,
    Over,
    Report,
    Stop,
    Tell,
    Told,
    answer_of,
)
from conure.processes.shared_limits import SharedUsage
from conure.server import WEB, ProtocolServers, opened
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
    with asyncio.Runner(loop_factory=event_loop) as runner:
        runner.run(_run(settings, plan, place, end))


async def _run(settings: Settings, plan: Plan, place: ProcessIdentity, end: socket.socket) -> None:
    watch_over(asyncio.get_running_loop())
    parent = await ControlChannel.over(end)
    handle = EngineClient(SocketTransport(place.engine, place.number, place.share(RING_SAMPLES)), place.number)
    status, counts = _SharedStatus(parent, handle), SharedUsage(parent)
    hearing = start(_hear(parent, status, counts), "listening to the first process")
    work = _work(settings, plan, place, handle, status, counts, parent, hearing)
    working = start(work, "serving connections")
    await asyncio.wait((working, hearing), return_when=asyncio.FIRST_COMPLETED)
    if status.doors is None:
        working.cancel()
    await asyncio.wait([working])
    hearing.cancel()
    for ended in await asyncio.gather(working, hearing, return_exceptions=True):
        if isinstance(ended, Exception):
            log.error("this process of connections ends", exc_info=ended)
    await handle.stop()
    if not status.is_dismissed and place.folder:
        shutil.rmtree(place.folder, ignore_errors=True)  # the parent was killed
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
        async with opened(settings, handle, plan, place, status, counts) as doors:
            status.doors = doors
            parent.say(Opened())
            lost = start(handle.until_failed(), "waiting for the engine's end")
            await asyncio.wait((doors.serving, hearing, lost), return_when=asyncio.FIRST_COMPLETED)
            lost.cancel()
            if doors.serving.done():
                raise failed(WEB, doors.serving.exception())
            if lost.done():  # the first process knows better what to do: it has the engine
                await asyncio.wait((hearing,), timeout=LAST_WORDS)
                raise lost.result()
    except ConureError as error:
        status.is_dismissed = True
        parent.say(Broken(type(error).__name__, error.message, error.hint))


async def _hear(parent: ControlChannel, status: _SharedStatus, counts: SharedUsage) -> None:
    """Until it is told to stop, or there is nobody who could."""
    draining: asyncio.Task[None] | None = None
    while message := await parent.hear():
        match message:
            case Tell(number):
                parent.say(Told(number, status.own()))
            case All():
                status.take(message)
            case Granted() | Over():
                counts.take(message)
            case Drain(seconds):
                draining = start(_drain(status, parent, seconds), "draining")
                note(draining, "draining")
            case Stop():
                status.is_dismissed = True
                break
    if draining:
        draining.cancel()


async def _drain(status: _SharedStatus, parent: ControlChannel, seconds: float) -> None:
    while status.doors is None:
        await asyncio.sleep(LOOK)  # it came for another one, and is still on its way
    await status.doors.drain(seconds)
    parent.say(Drained())


class _SharedStatus:
    """Of the whole server, which the parent knows."""

    def __init__(self, parent: ControlChannel, handle: EngineClient) -> None:
        self.doors: ProtocolServers | None = None
        self.is_dismissed = False
        """The parent knows that this process ends."""
        self._parent = parent
        self._handle = handle
        self._asked: dict[int, asyncio.Future[All]] = {}
        self._numbers = itertools.count(1)

    @property
    def _live(self) -> LiveService | None:
        return self.doors.live if self.doors else None

    @property
    def is_ready(self) -> bool:
        return self._handle.is_ready and self._live is not None and not self._live.draining

    async def tell(self) -> dict[str, Any]:
        told = await self._ask()
        return told.status

    async def measured(self) -> bytes:
        return metrics.render((await self._ask()).measured)

    def own(self) -> Report:
        return Report(len(self._live) if self._live is not None else 0, metrics.collect())

    def take(self, answer: All) -> None:
        asked = self._asked.pop(answer.number, None)
        if asked and not asked.done():
            asked.set_result(answer)

    async def _ask(self) -> All:
        """Raises Busy."""
        number = next(self._numbers)
        answer: asyncio.Future[All] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self._parent.say(Ask(number))
            return await answer_of(answer)
        finally:
            self._asked.pop(number, None)
