"""The door processes of a server, as their parent sees them: it starts them, asks how they are, and ends them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import multiprocessing
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from conure import errors, metrics
from conure import log as logs
from conure.engine.plan import Plan
from conure.engine.wire import Broken
from conure.errors import ConureError, EngineFailed
from conure.metrics import Family
from conure.processes.counting import CommonLedger
from conure.processes.exchange import (
    All,
    Ask,
    Begin,
    Channel,
    Drain,
    Drained,
    End,
    Opened,
    Report,
    Reserve,
    Spend,
    Stop,
    Tell,
    Told,
)
from conure.service.place import Place
from conure.settings import Settings

__all__ = ["Crew"]

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that one is waited for that does not answer; then what it said last counts."""
LOOK = 5.0
"""Seconds between looks at what they have counted, which goes on to count when one dies."""
END_PATIENCE = 5.0
"""Seconds that a process is given to end by itself."""
MOST_DEATHS = 5
"""Within DEATH_SECONDS; after more of them none is started any more."""
DEATH_SECONDS = 120.0

Answer = Callable[[int, list[Family]], All]
"""Streams of all, and what all have measured, to the answer for who asked, but for its number."""


class Crew:
    def __init__(self, settings: Settings, plan: Plan, place: Place, answer: Answer) -> None:
        """`place`: theirs, but for the number."""
        self._settings, self._plan, self._place = settings, plan, place
        self._answer = answer
        self._ledger = CommonLedger()
        self._numbers = itertools.count(1)
        self._asks = itertools.count(1)
        self._doors: dict[int, _Door] = {}
        self._counted: list[Family] = []
        """By those that have gone."""
        self._deaths: deque[float] = deque()
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
        doors = [await self._begin() for _ in range(self._place.among)]
        self._looking = asyncio.create_task(self._look())
        for door in doors:
            await door.opened

    async def ask(self) -> All:
        """How all of them are, together."""
        number = next(self._asks)
        asked = [door for door in self._doors.values() if door.opened.done()]
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
            door.channel.say(Drain(seconds))
        while left := [door.drained for door in self._doors.values() if not door.drained.done()]:
            await asyncio.wait(left)

    async def stop(self) -> None:
        """At once; who does not end by itself is killed."""
        self._ending = True
        for door in self._doors.values():
            door.channel.say(Stop())
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
        door = self._doors[number] = _Door(number, process, await Channel.over(ours))
        hearing = asyncio.create_task(self._hear(door))
        self._hearing.add(hearing)
        hearing.add_done_callback(self._hearing.discard)
        return door

    async def _hear(self, door: _Door) -> None:
        asking: set[asyncio.Task[None]] = set()
        while message := await door.channel.hear():
            match message:
                case Ask(number):
                    task = asyncio.create_task(self._tell(door, number))
                    asking.add(task)
                    task.add_done_callback(asking.discard)
                case Begin() | Reserve() | Spend() | End():
                    if answer := self._ledger.answer(door.number, message, time.monotonic()):
                        door.channel.say(answer)
                case _:
                    door.take(message)
        self._ledger.leave(door.number)
        await asyncio.to_thread(door.end)
        del self._doors[door.number]
        self._counted = metrics.total([self._counted, metrics.counts(door.report.measured)])
        if door.leave() and not self._ending:
            await self._replace(door)

    async def _tell(self, door: _Door, number: int) -> None:
        told = await self.ask()
        door.channel.say(All(number, told.status, told.measured))

    async def _replace(self, door: _Door) -> None:
        now = time.monotonic()
        self._deaths.append(now)
        while now - self._deaths[0] > DEATH_SECONDS:
            self._deaths.popleft()
        if len(self._deaths) <= MOST_DEATHS:
            log.error("%s; starting another", door.fate)
            (await self._begin()).replaces = True
        else:
            log.critical("%s; too many did, so no other is started", door.fate)
            if not self._doors and not self.failed.done():
                self.failed.set_exception(EngineFailed("all processes with connections died", "see the log"))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            await self.ask()


class _Door:
    """One of them."""

    def __init__(self, number: int, process: multiprocessing.process.BaseProcess, channel: Channel) -> None:
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
        self._process = process
        assert process.pid
        self.pid = process.pid

    def ask(self, number: int) -> asyncio.Future[None]:
        """Done when it has answered, or has gone."""
        told = self.told[number] = asyncio.get_running_loop().create_future()
        self.channel.say(Tell(number))
        return told

    def take(self, message: object) -> None:
        match message:
            case Opened():
                _settle(self.opened)
            case Drained():
                _settle(self.drained)
            case Told(number, report):
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


def _work(settings: Settings, plan: Plan, place: Place, end: socket.socket, logged: tuple[logs.Detail, bool]) -> None:
    from conure.processes.door import work  # noqa: PLC0415  it loads the web framework, which the parent never does

    work(settings, plan, place, end, logged)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
