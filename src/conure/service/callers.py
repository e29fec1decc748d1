"""Callers with keys: identification, scopes and counted usage.

secret ──> key file ──> caller ──> `begin_usage` ──> `UsageCounts`, which all processes share
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

MIN_SPENT = 1.0
"""Seconds of audio of a usage that are counted at once: packets have 20 ms."""

LimitCallback = Callable[[TooMany], None]


class UsageCounts(Protocol):
    """Usage of keys in the whole server. A usage has a number from `begin` to `end`."""

    async def begin(self, key: str, limits: Limits, scope: Scope, on_limit: LimitCallback) -> int:
        """Raises TooMany. `on_limit` is called when the key has used up its audio."""
        ...

    async def reserve(self, number: int, seconds: float) -> None:
        """Raises TooMany."""
        ...

    def spend(self, number: int, seconds: float) -> None: ...

    def end(self, number: int) -> None: ...


class LocalUsage:
    """`UsageCounts` of a server of one process."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._numbers = itertools.count(1)
        self._on_limit: dict[int, LimitCallback] = {}

    async def begin(self, key: str, limits: Limits, scope: Scope, on_limit: LimitCallback) -> int:
        number = next(self._numbers)
        self._ledger.begin((0, number), key, limits, scope, time.monotonic())
        self._on_limit[number] = on_limit
        return number

    async def reserve(self, number: int, seconds: float) -> None:
        self._ledger.reserve((0, number), seconds, time.monotonic())

    def spend(self, number: int, seconds: float) -> None:
        try:
            self._ledger.spend((0, number), seconds, time.monotonic())
        except TooMany as error:
            self._on_limit[number](error)

    def end(self, number: int) -> None:
        self._ledger.end((0, number))
        del self._on_limit[number]


class KeyedAccess:
    """Access to a server with keys."""

    needs_key = True

    def __init__(self, keys: KeyFile, counts: UsageCounts) -> None:
        self._keys = keys
        self._counts = counts

    def identify(self, secret: str | None) -> Caller:
        if secret is None:
            raise _count_refusal(Unauthorized("an API key is required", "send Authorization: Bearer cnr_..."))
        if key := self._keys.find_by_secret(secret, time.monotonic()):
            return _Keyholder(key.name, self._keys, self._counts)
        raise _count_refusal(
            Unauthorized("the key is not known", "it was removed or is truncated; see `conure keys list`")
        )

    def is_valid_key(self, secret: str) -> bool:
        return self._keys.find_by_secret(secret, time.monotonic()) is not None

    def caller_named(self, name: str) -> Caller:
        if self._keys.find_by_name(name, time.monotonic()) is None:
            raise _count_refusal(_removed(name))
        return _Keyholder(name, self._keys, self._counts)


def open_access(settings: Settings, counts: UsageCounts) -> Access:
    """Raises BadOption for a key file that is invalid or empty."""
    return KeyedAccess(KeyFile(settings.keys), counts) if settings.keys else AnonymousAccess()


class _Keyholder:
    """Scopes and limits are looked up for each usage: the key may have changed since it was identified."""

    def __init__(self, name: str, keys: KeyFile, counts: UsageCounts) -> None:
        self.name = name
        self._keys = keys
        self._counts = counts

    async def begin_usage(self, scope: Scope) -> Usage:
        try:
            return await self._begin(scope)
        except ConureError as error:
            raise _count_refusal(error) from None

    async def _begin(self, scope: Scope) -> Usage:
        key = self._keys.find_by_name(self.name, time.monotonic())
        if key is None:
            raise _removed(self.name)
        if scope not in key.scopes:
            raise Forbidden(f"the key {key.name!r} does not permit {scope}", f"its scopes: {', '.join(key.scopes)}")
        if scope == "status" or key.limits == NO_LIMITS:
            return UNLIMITED
        return await _CountedUsage.begin(self._counts, key, scope)


class _CountedUsage:
    def __init__(self, counts: UsageCounts) -> None:
        self._counts = counts
        self._number = 0
        self._unspent = 0.0
        self._limit_error: TooMany | None = None

    @staticmethod
    async def begin(counts: UsageCounts, key: Key, scope: Scope) -> _CountedUsage:
        usage = _CountedUsage(counts)
        usage._number = await counts.begin(key.id, key.limits, scope, usage._on_limit)
        return usage

    async def reserve(self, seconds: float) -> None:
        try:
            await self._counts.reserve(self._number, seconds)
        except TooMany as error:
            raise _count_refusal(error) from None

    def spend(self, seconds: float) -> None:
        self._unspent += seconds
        if self._unspent >= MIN_SPENT:
            self._flush()
        if self._limit_error:
            raise self._limit_error

    def close(self) -> None:
        if self._number:
            self._flush()
            self._counts.end(self._number)
            self._number = 0

    def _flush(self) -> None:
        self._counts.spend(self._number, self._unspent)
        self._unspent = 0.0

    def _on_limit(self, error: TooMany) -> None:
        self._limit_error = error


def _count_refusal(error: ConureError) -> ConureError:
    metrics.REFUSED.labels(error.code).inc()
    log.info("refused: %s", error.message)
    return error


def _removed(name: str) -> Unauthorized:
    return Unauthorized(f"the key {name!r} was removed", "use another one")
