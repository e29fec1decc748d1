"""Usage of keys in a server of several processes: the parent counts it, server processes send requests to it.

    a usage begins      BeginUsage ──> UsageGranted or LimitReached
    audio is announced  ReserveUsage ──> UsageGranted or LimitReached
    audio is received   SpendUsage ──> LimitReached, if the limit is used up
    it ends             EndUsage

When a process dies, its open usages end.
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
    wait_for_response,
)
from conure.service.access import Scope
from conure.service.callers import LimitCallback
from conure.service.limits import Ledger, Limits

__all__ = ["SharedLedger", "SharedUsage"]


class SharedUsage:
    """`UsageCounts` of a server process."""

    def __init__(self, parent: ControlChannel) -> None:
        self._parent = parent
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[None]] = {}
        """Requests without a response, by the number of their usage."""
        self._on_limit: dict[int, LimitCallback] = {}

    async def begin(self, key: str, limits: Limits, scope: Scope, on_limit: LimitCallback) -> int:
        number = next(self._numbers)
        try:
            await self._request(BeginUsage(number, key, limits, scope))
        except TooMany:
            raise
        except (asyncio.CancelledError, Busy):
            self._parent.send(EndUsage(number))  # the parent may have granted it
            raise
        self._on_limit[number] = on_limit
        return number

    async def reserve(self, number: int, seconds: float) -> None:
        await self._request(ReserveUsage(number, seconds))

    def spend(self, number: int, seconds: float) -> None:
        self._parent.send(SpendUsage(number, seconds))

    def end(self, number: int) -> None:
        self._parent.send(EndUsage(number))
        del self._on_limit[number]

    async def _request(self, request: BeginUsage | ReserveUsage) -> None:
        """Raises TooMany, and Busy if the parent does not respond."""
        pending = self._pending[request.number] = asyncio.get_running_loop().create_future()
        self._parent.send(request)
        try:
            await wait_for_response(pending)
        finally:
            del self._pending[request.number]

    def handle_response(self, response: UsageGranted | LimitReached) -> None:
        pending = self._pending.get(response.number)
        if isinstance(response, UsageGranted):
            if pending and not pending.done():
                pending.set_result(None)
            return
        error = TooMany(response.message, response.hint, response.retry_after)
        if pending and not pending.done():
            pending.set_exception(error)
        elif on_limit := self._on_limit.get(response.number):
            on_limit(error)


class SharedLedger:
    """The parent's ledger of all server processes."""

    def __init__(self) -> None:
        self._ledger = Ledger()

    def handle_request(
        self, process: int, request: BeginUsage | ReserveUsage | SpendUsage | EndUsage, now: float
    ) -> UsageGranted | LimitReached | None:
        usage = (process, request.number)
        try:
            match request:
                case BeginUsage(number, key, limits, scope):
                    self._ledger.begin(usage, key, limits, scope, now)
                    return UsageGranted(number)
                case ReserveUsage(number, seconds):
                    self._ledger.reserve(usage, seconds, now)
                    return UsageGranted(number)
                case SpendUsage(_, seconds):
                    self._ledger.spend(usage, seconds, now)
                case EndUsage():
                    self._ledger.end(usage)
        except TooMany as error:
            return LimitReached(request.number, error.message, error.hint, error.retry_after)
        return None

    def release_process(self, process: int) -> None:
        """Ends all usages of a process that is gone."""
        self._ledger.release_process(process)
