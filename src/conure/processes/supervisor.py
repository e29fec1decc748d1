"""The door processes of a server, as their parent sees them: it starts them, asks how they are, and ends them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import multiprocessing
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from conure import errors, metrics
from conure import log as logs
from conure.background import report_failure, report_if_failed, start_restarting_task, start_task
from conure.engine.ipc.wire import Broken
from conure.engine.plan import Plan
from conure.errors import ConureError, EngineFailed
from conure.metrics import Family
from conure.processes.control_protocol import (
    BeginUsage,
    ControlChannel,
    Drain,
    Drained,
    EndUsage,
    Report,
    ReportRequest,
    ReportResponse,
    ReserveUsage,
    ServerOpened,
    SpendUsage,
    StatusRequest,
    StatusResponse,
    Stop,
)
from conure.processes.shared_limits import SharedLedger
from conure.service.process_identity import ProcessIdentity
from conure.settings import Settings

__all__ = ["Supervisor"]

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that one is waited for that does not answer; then what it said last counts."""
PAUSE = 1.0
"""Seconds before it is tried again to start one."""
LOOK = 2.0
"""Seconds between looks at each: whether it answers, and what it has counted, which goes on to count when it dies."""
LATE = 3
"""Looks in a row without a word, after which no answer is waited for."""
MOST_MISSED = 8
"""The same, after which it is taken for dead: its streams would end anyway, so far behind they are, and the kernel goes
on to deal it connections."""
UNASKED = 0
"""The number of the question at a look, whose answer nobody waits for."""
END_PATIENCE = 5.0
"""Seconds that a process is given to end by itself."""
MOST_DEATHS = 5
"""In a row, without one of them having opened its doors; after more none is started any more."""

Answer = Callable[[int, list[Family]], StatusResponse]
"""Streams of all, and what all have measured, to the answer for who asked, but for its number."""


class Supervisor:
    def __init__(self, settings: Settings, plan: Plan, place: ProcessIdentity, answer: Answer) -> None:
        """`place`: theirs, but for the number."""
        self._settings, self._plan, self._place = settings, plan, place
        self._answer = answer
        self._ledger = SharedLedger()
        self._numbers = itertools.count(1)
        self._asks = itertools.count(1)
        self._doors: dict[int, _Door] = {}
        self._counted: list[Family] = []
        """By those that have gone."""
        self._deaths = 0
        """In a row, before their doors were open."""
        self._hearing: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets an exception when there is nobody left who could open a door."""
        self._ending = False

    @property
    def processes(self) -> dict[str, int]:
        """Their ids."""
        return {f"door {number}": door.pid for number, door in self._doors.items()}

    async def start(self) -> None:
        """Returns when all have opened their doors. Raises ConureError where one cannot."""
        doors = [await self._begin() for _ in range(self._place.process_count)]
        self._looking = start_restarting_task(self._look, "looking after the processes with connections")
        for door in doors:
            await door.opened

    async def ask(self) -> StatusResponse:
        """How all of them are, together."""
        number = next(self._asks)
        asked = [door for door in self._doors.values() if door.opened.done() and not door.is_silent]
        if waiting := [door.ask(number) for door in asked]:
            await asyncio.wait(waiting, timeout=PATIENCE)
        for door in asked:
            door.told.pop(number, None)
        reports = [door.report for door in self._doors.values()]
        measured = metrics.total([self._counted, *(report.measured for report in reports), metrics.collect()])
        return self._answer(sum(report.streams for report in reports), measured)

    async def drain(self, seconds: float) -> None:
        """Returns when nothing is open anywhere any more."""
        self._ending = True
        for door in self._doors.values():
            door.channel.send(Drain(seconds))
        while left := [door.drained for door in self._doors.values() if not door.drained.done()]:
            await asyncio.wait(left)

    async def stop(self) -> None:
        """At once; who does not end by itself is killed."""
        self._ending = True
        for door in self._doors.values():
            door.channel.send(Stop())
        if self._looking:
            self._looking.cancel()
        for last in (False, True):
            if self._hearing:
                await asyncio.wait(self._hearing, timeout=None if last else END_PATIENCE)
            for door in self._doors.values():
                door.kill()
        self.failed.cancel()

    async def _begin(self) -> _Door:
        number = next(self._numbers)
        ours, theirs = socket.socketpair()
        process = multiprocessing.get_context("spawn").Process(
            target=_work,
            args=(self._settings, self._plan, replace(self._place, number=number), theirs, logs.configured()),
            name=f"conure-door-{number}",
        )
        process.start()
        theirs.close()
        most_missed = max(math.ceil(self._settings.start_seconds / LOOK), MOST_MISSED)
        door = self._doors[number] = _Door(number, process, await ControlChannel.from_socket(ours), most_missed)
        hearing = start_task(self._serve(door), "listening to a process with connections")
        self._hearing.add(hearing)
        hearing.add_done_callback(self._hearing.discard)
        return door

    async def _serve(self, door: _Door) -> None:
        """From its start to its end. One that cannot be listened to is ended, and replaced like one that died."""
        try:
            await self._hear(door)
        except Exception as error:
            report_failure("listening to a process with connections", error)
            door.kill()
        self._ledger.leave(door.number)
        await asyncio.to_thread(door.end)
        del self._doors[door.number]
        self._count_silent()
        self._counted = metrics.total([self._counted, metrics.counts(door.report.measured)])
        if door.leave() and not self._ending:
            await self._replace(door)

    async def _hear(self, door: _Door) -> None:
        asking: set[asyncio.Task[None]] = set()
        while message := await door.channel.receive():
            door.heard()
            match message:
                case StatusRequest(number):
                    task = start_task(self._tell(door, number), "telling how the server is")
                    report_if_failed(task, "telling how the server is")
                    asking.add(task)
                    task.add_done_callback(asking.discard)
                case BeginUsage() | ReserveUsage() | SpendUsage() | EndUsage():
                    if answer := self._ledger.answer(door.number, message, time.monotonic()):
                        door.channel.send(answer)
                case ServerOpened():
                    self._deaths = 0
                    door.take(message)
                case _:
                    door.take(message)

    async def _tell(self, door: _Door, number: int) -> None:
        told = await self.ask()
        door.channel.send(StatusResponse(number, told.status, told.measured))

    async def _replace(self, door: _Door) -> None:
        """Where one cannot be started it counts as one that died."""
        fate = door.fate
        while self._deaths < MOST_DEATHS:
            self._deaths += 1
            log.error("%s; starting another", fate)
            try:
                (await self._begin()).replaces = True
                metrics.DOOR_RESTARTS.labels("hung" if door.is_hung else "died").inc()
                return
            except OSError as error:
                fate = f"a process for connections cannot be started: {error.strerror or error}"
                await asyncio.sleep(PAUSE)
        log.critical("%s; too many did, so no other is started", fate)
        if not self._doors and not self.failed.done():
            self.failed.set_exception(EngineFailed("all processes with connections died", "see the log"))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            for door in self._doors.values():
                door.look()
            self._count_silent()

    def _count_silent(self) -> None:
        metrics.DOORS_SILENT.set(sum(door.is_silent for door in self._doors.values()))


class _Door:
    """One of them."""

    def __init__(
        self, number: int, process: multiprocessing.process.BaseProcess, channel: ControlChannel, most_missed: int
    ) -> None:
        """`most_missed`: looks without a word while it starts."""
        loop = asyncio.get_running_loop()
        self.fate = f"process {number}, which holds connections, died"
        self.number = number
        self.channel = channel
        self.opened: asyncio.Future[None] = loop.create_future()
        self.drained: asyncio.Future[None] = loop.create_future()
        self.told: dict[int, asyncio.Future[None]] = {}
        """What was asked and not answered."""
        self.report = Report()
        """The last one."""
        self.replaces = False
        """It came for one that died."""
        self.is_hung = False
        """It was killed for saying nothing."""
        self._missed, self._most_missed, self._was_heard = 0, most_missed, False
        self._process = process
        assert process.pid
        self.pid = process.pid

    def ask(self, number: int) -> asyncio.Future[None]:
        """Done when it has answered, or has gone."""
        told = self.told[number] = asyncio.get_running_loop().create_future()
        self.channel.send(ReportRequest(number))
        return told

    @property
    def is_silent(self) -> bool:
        """It has said something, but not for a while."""
        return self._was_heard and self._missed >= LATE

    def look(self) -> None:
        """Looks are counted, not time: while the parent is held up itself, nobody misses one."""
        was_silent = self.is_silent
        self._missed += 1
        if self._missed > self._most_missed:
            self.is_hung = True
            self.fate = f"process {self.number}, which holds connections, hangs and is killed"
            self.kill()
        elif self.is_silent and not was_silent:
            log.warning("process %d, which holds connections, does not answer", self.number)
        self.channel.send(ReportRequest(UNASKED))

    def heard(self) -> None:
        if self.is_silent:
            log.warning("process %d, which holds connections, answers again", self.number)
        self._missed, self._most_missed, self._was_heard = 0, MOST_MISSED, True

    def take(self, message: object) -> None:
        match message:
            case ServerOpened():
                _settle(self.opened)
            case Drained():
                _settle(self.drained)
            case ReportResponse(number, report):
                self.report = report
                if asked := self.told.get(number):
                    _settle(asked)
            case Broken(name, text, hint):
                kind: type[ConureError] = getattr(errors, name, EngineFailed)
                self.fate += f": {text}"
                if not self.opened.done():
                    self.opened.set_exception(kind(text, hint))

    def leave(self) -> bool:
        """It has gone: nobody waits for it. Whether it is to be replaced, or whoever starts the server is told."""
        was_open = self.opened.done() and not self.opened.exception()
        for waiting in (self.drained, *self.told.values()):
            _settle(waiting)
        if not self.opened.done():
            self.opened.set_exception(EngineFailed(self.fate, "see its log"))
        self.opened.exception()  # it may be that nobody asked
        self.channel.close()
        return was_open or self.replaces

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Waits until the process has ended."""
        self._process.join(END_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _work(
    settings: Settings, plan: Plan, place: ProcessIdentity, end: socket.socket, logged: tuple[logs.Detail, bool]
) -> None:
    from conure.processes.server_process import work  # noqa: PLC0415  it loads the web framework, which the parent never does

    work(settings, plan, place, end, logged)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
