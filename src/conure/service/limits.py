"""How much each key may have, and what it has had. The clock is an argument.

    requests   in the last minute, each at its own time
    streams    that are open
    audio      in the last day, by quarters of an hour, and what recordings that are being transcribed have reserved

Who may have no more is told after how many seconds there will be some again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta, Struct

from conure.errors import TooMany
from conure.service.access import Scope

__all__ = ["NO_LIMITS", "Ledger", "Limits"]

MINUTE, QUARTER, DAY = 60.0, 900.0, 86_400.0
STREAM_RETRY = 5.0
"""Nobody knows when a stream ends."""
RESERVED_RETRY = 10.0
"""Nor when a recording is transcribed."""


class Limits(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Of one key; None is as much as the machine gives."""

    requests_per_minute: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    """Streams that are opened and recordings that are sent."""
    streams: Annotated[int, Meta(ge=1)] | None = None
    """Live ones at once."""
    audio_minutes_per_day: Annotated[float, Meta(gt=0)] | None = None
    """Of streams and recordings together."""


NO_LIMITS = Limits()

Visit = tuple[int, int]
"""The process that has it, and its number there."""


class Ledger:
    """What all keys have had, and what they have open."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._visits: dict[Visit, _Open] = {}

    def begin(self, visit: Visit, key: str, limits: Limits, scope: Scope, now: float) -> None:
        """Raises TooMany; then nothing has begun."""
        account = self._accounts.setdefault(key, _Account())
        is_stream = scope == "live"
        account.check_requests(limits.requests_per_minute, now)
        if is_stream:
            account.check_streams(limits.streams)
        account.check_audio(limits.audio_minutes_per_day, now)
        account.begun.append(now)
        account.streams += is_stream
        self._visits[visit] = _Open(account, limits, is_stream)

    def reserve(self, visit: Visit, seconds: float, now: float) -> None:
        """So much is announced, and set aside for the visit. Raises TooMany where nothing is left; one that is let in
        may reserve more than is left."""
        if found := self._visits.get(visit):
            found.account.check_audio(found.limits.audio_minutes_per_day, now)
            found.reserved += seconds
            found.account.reserved += seconds

    def spend(self, visit: Visit, seconds: float, now: float) -> None:
        """So much audio came, and is counted. Raises TooMany where it is more than was reserved, and the key has had
        all that it may have."""
        if found := self._visits.get(visit):
            was_reserved = seconds <= found.reserved
            found.release(min(seconds, found.reserved))
            found.account.hear(seconds, now)
            if not was_reserved:
                found.account.check_audio(found.limits.audio_minutes_per_day, now)

    def end(self, visit: Visit) -> None:
        """Gives back what was reserved and not spent. Once more does no harm."""
        if found := self._visits.pop(visit, None):
            found.account.streams -= found.is_stream
            found.release(found.reserved)

    def release_process(self, process: int) -> None:
        """A process has gone, and what it had open with it."""
        for visit in [visit for visit in self._visits if visit[0] == process]:
            self.end(visit)


@dataclass(slots=True)
class _Account:
    begun: deque[float] = field(default_factory=deque)
    """When, in the last minute; as many as the limit allows."""
    streams: int = 0
    heard: deque[list[float]] = field(default_factory=deque)
    """When a quarter of an hour ended, and the seconds of audio in it; those of a day."""
    reserved: float = 0.0
    """Seconds that visits have reserved and not spent."""

    def check_requests(self, most: int | None, now: float) -> None:
        while self.begun and self.begun[0] + MINUTE <= now:
            self.begun.popleft()
        if most is None:
            self.begun.clear()
        elif len(self.begun) >= most:
            retry = self.begun[-most] + MINUTE - now
            raise TooMany(f"the key may begin {most} streams and recordings a minute, and has", _later(retry), retry)

    def check_streams(self, most: int | None) -> None:
        if most is not None and self.streams >= most:
            message = f"the key may have {most} streams at once, and {self.streams} are open"
            raise TooMany(message, "end one, or take a key that may have more", STREAM_RETRY)

    def check_audio(self, most_minutes: float | None, now: float) -> None:
        while self.heard and self.heard[0][0] + DAY <= now:
            self.heard.popleft()
        if most_minutes is None:
            return
        left = sum(seconds for _, seconds in self.heard)
        if left + self.reserved < 60 * most_minutes:
            return
        if left < 60 * most_minutes:
            message = f"the key may send {most_minutes:g} minutes of audio in a day: recordings under way take the rest"
            raise TooMany(message, "try again when they are transcribed", RESERVED_RETRY)
        for end, seconds in self.heard:
            left -= seconds
            if left < 60 * most_minutes:
                retry = end + DAY - now
                message = f"the key may send {most_minutes:g} minutes of audio in a day, and has"
                raise TooMany(message, _later(retry), retry)

    def hear(self, seconds: float, now: float) -> None:
        end = (now // QUARTER + 1) * QUARTER
        if not self.heard or self.heard[-1][0] < end:
            self.heard.append([end, 0.0])
        self.heard[-1][1] += seconds


@dataclass(slots=True)
class _Open:
    account: _Account
    limits: Limits
    is_stream: bool
    reserved: float = 0.0
    """Seconds, not spent yet."""

    def release(self, seconds: float) -> None:
        self.reserved -= seconds
        self.account.reserved -= seconds


def _later(seconds: float) -> str:
    told = f"{seconds:.0f} s" if seconds < 2 * MINUTE else f"{seconds / MINUTE:.0f} minutes"
    return f"try again in {told}, or take a key that may have more"
