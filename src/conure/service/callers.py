"""Callers with keys: who they are, what they may, and how what they have is counted.

secret ──> the file of keys ──> a caller ──> `begin` ──> `UsageCounts`, which all processes share
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from typing import Protocol

from conure import metrics
from conure.errors import ConureError, Forbidden, TooMany, Unauthorized
from conure.service.access import UNLIMITED, Access, AnonymousAccess, Caller, Scope, Usage
from conure.service.keys import Key, KeyFile
from conure.service.limits import NO_LIMITS, Ledger, Limits
from conure.settings import Settings

__all__ = ["UsageCounts", "KeyedAccess", "LocalUsage", "LimitCallback", "open_access"]

log = logging.getLogger(__name__)

TOGETHER = 1.0
"""Seconds of audio of a visit that are counted together: packets have 20 ms."""

LimitCallback = Callable[[TooMany], None]


class UsageCounts(Protocol):
    """What keys have had, in the whole server. A visit has a number from `begin` to `end`."""

    async def begin(self, key: str, limits: Limits, scope: Scope, tell: LimitCallback) -> int:
        """Raises TooMany. `tell` is called when the key has had all the audio that it may have."""
        ...

    async def reserve(self, number: int, seconds: float) -> None:
        """Raises TooMany."""
        ...

    def spend(self, number: int, seconds: float) -> None: ...

    def end(self, number: int) -> None: ...


class LocalUsage:
    """Of a server of one process."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._numbers = itertools.count(1)
        self._tell: dict[int, LimitCallback] = {}

    async def begin(self, key: str, limits: Limits, scope: Scope, tell: LimitCallback) -> int:
        number = next(self._numbers)
        self._ledger.begin((0, number), key, limits, scope, time.monotonic())
        self._tell[number] = tell
        return number

    async def reserve(self, number: int, seconds: float) -> None:
        self._ledger.reserve((0, number), seconds, time.monotonic())

    def spend(self, number: int, seconds: float) -> None:
        try:
            self._ledger.spend((0, number), seconds, time.monotonic())
        except TooMany as error:
            self._tell[number](error)

    def end(self, number: int) -> None:
        self._ledger.end((0, number))
        del self._tell[number]


class KeyedAccess:
    """Of a server with keys."""

    needs_key = True

    def __init__(self, keys: KeyFile, counts: UsageCounts) -> None:
        self._keys = keys
        self._counts = counts

    def identify(self, secret: str | None) -> Caller:
        if secret is None:
            raise _refused(Unauthorized("a key is needed", "send one: Authorization: Bearer cnr_..."))
        if key := self._keys.find_by_secret(secret, time.monotonic()):
            return _Keyholder(key.name, self._keys, self._counts)
        raise _refused(Unauthorized("the key is not known", "was it removed, or cut off? `conure keys` lists those"))

    def is_valid_key(self, secret: str) -> bool:
        return self._keys.find_by_secret(secret, time.monotonic()) is not None

    def caller_named(self, name: str) -> Caller:
        if self._keys.find_by_name(name, time.monotonic()) is None:
            raise _refused(_gone(name))
        return _Keyholder(name, self._keys, self._counts)


def open_access(settings: Settings, counts: UsageCounts) -> Access:
    """Raises BadOption for a file of keys that is none, or empty."""
    return KeyedAccess(KeyFile(settings.keys), counts) if settings.keys else AnonymousAccess()


class _Keyholder:
    """What it may is looked up when it begins something: the key may have changed since it came."""

    def __init__(self, name: str, keys: KeyFile, counts: UsageCounts) -> None:
        self.name = name
        self._keys = keys
        self._counts = counts

    async def begin_usage(self, scope: Scope) -> Usage:
        try:
            return await self._begin(scope)
        except ConureError as error:
            raise _refused(error) from None

    async def _begin(self, scope: Scope) -> Usage:
        key = self._keys.find_by_name(self.name, time.monotonic())
        if key is None:
            raise _gone(self.name)
        if scope not in key.scopes:
            raise Forbidden(f"the key {key.name!r} is not for {scope}", f"it is for {', '.join(key.scopes)}")
        if scope == "status" or key.limits == NO_LIMITS:
            return UNLIMITED
        return await _Counted.begun(self._counts, key, scope)


class _Counted:
    def __init__(self, counts: UsageCounts) -> None:
        self._counts = counts
        self._number = 0
        self._unspent = 0.0
        self._over: TooMany | None = None

    @staticmethod
    async def begun(counts: UsageCounts, key: Key, scope: Scope) -> _Counted:
        visit = _Counted(counts)
        visit._number = await counts.begin(key.id, key.limits, scope, visit._tell)
        return visit

    async def reserve(self, seconds: float) -> None:
        try:
            await self._counts.reserve(self._number, seconds)
        except TooMany as error:
            raise _refused(error) from None

    def spend(self, seconds: float) -> None:
        self._unspent += seconds
        if self._unspent >= TOGETHER:
            self._pay()
        if self._over:
            raise self._over

    def close(self) -> None:
        if self._number:
            self._pay()
            self._counts.end(self._number)
            self._number = 0

    def _pay(self) -> None:
        self._counts.spend(self._number, self._unspent)
        self._unspent = 0.0

    def _tell(self, error: TooMany) -> None:
        self._over = error


def _refused(error: ConureError) -> ConureError:
    metrics.REFUSED.labels(error.code).inc()
    log.info("refused: %s", error.message)
    return error


def _gone(name: str) -> Unauthorized:
    return Unauthorized(f"the key {name!r} was removed", "take another one")
