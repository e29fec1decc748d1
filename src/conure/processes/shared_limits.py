"""What keys have had, where several processes hold connections: their parent counts, and they ask it.

    a visit begins      Begin ──> Granted, or Over
    audio is announced  Reserve ──> Granted, or Over
    audio comes         Spend ──> Over, where that was all
    it ends             End

A process that dies gives back what it had open.
"""

from __future__ import annotations

import asyncio
import itertools

from conure.errors import Busy, TooMany
from conure.processes.control_protocol import (
    BeginUsage,
    ControlChannel,
    EndUsage,
    LimitReached,
    ReserveUsage,
    SpendUsage,
    UsageGranted,
    answer_of,
)
from conure.service.access import Scope
from conure.service.callers import Tell
from conure.service.limits import Ledger, Limits

__all__ = ["SharedLedger", "SharedUsage"]


class SharedUsage:
    """As a process asks."""

    def __init__(self, parent: ControlChannel) -> None:
        self._parent = parent
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._tell: dict[int, Tell] = {}

    async def begin(self, key: str, limits: Limits, scope: Scope, tell: Tell) -> int:
        number = next(self._numbers)
        try:
            await self._ask(BeginUsage(number, key, limits, scope))
        except TooMany:
            raise
        except (asyncio.CancelledError, Busy):
            self._parent.send(EndUsage(number))  # it may have begun
            raise
        self._tell[number] = tell
        return number

    async def reserve(self, number: int, seconds: float) -> None:
        await self._ask(ReserveUsage(number, seconds))

    def spend(self, number: int, seconds: float) -> None:
        self._parent.send(SpendUsage(number, seconds))

    def end(self, number: int) -> None:
        self._parent.send(EndUsage(number))
        del self._tell[number]

    async def _ask(self, question: BeginUsage | ReserveUsage) -> None:
        """Raises TooMany, and Busy where the parent does not answer."""
        asked = self._asked[question.number] = asyncio.get_running_loop().create_future()
        self._parent.send(question)
        try:
            await answer_of(asked)
        finally:
            del self._asked[question.number]

    def take(self, answer: UsageGranted | LimitReached) -> None:
        """What the parent says."""
        asked = self._asked.get(answer.number)
        if isinstance(answer, UsageGranted):
            if asked and not asked.done():
                asked.set_result(None)
            return
        error = TooMany(answer.message, answer.hint, answer.retry_after)
        if asked and not asked.done():
            asked.set_exception(error)
        elif tell := self._tell.get(answer.number):
            tell(error)


class SharedLedger:
    """As the parent answers."""

    def __init__(self) -> None:
        self._ledger = Ledger()

    def answer(
        self, process: int, said: BeginUsage | ReserveUsage | SpendUsage | EndUsage, now: float
    ) -> UsageGranted | LimitReached | None:
        visit = (process, said.number)
        try:
            match said:
                case BeginUsage(number, key, limits, scope):
                    self._ledger.begin(visit, key, limits, scope, now)
                    return UsageGranted(number)
                case ReserveUsage(number, seconds):
                    self._ledger.reserve(visit, seconds, now)
                    return UsageGranted(number)
                case SpendUsage(_, seconds):
                    self._ledger.spend(visit, seconds, now)
                case EndUsage():
                    self._ledger.end(visit)
        except TooMany as error:
            return LimitReached(said.number, error.message, error.hint, error.retry_after)
        return None

    def leave(self, process: int) -> None:
        """It has gone."""
        self._ledger.leave(process)
