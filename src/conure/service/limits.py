"""Limits of keys, and the ledger of their usage. The clock is an argument.

    requests   the times of those of the last minute
    streams    the number of open ones
    audio      of the last day, by quarters of an hour, plus reservations of recordings in progress

Errors say after how many seconds a new request can succeed.
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
"""The end of a stream is unknown."""
RESERVED_RETRY = 10.0
"""So is the end of a transcription."""


class Limits(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Limits of one key; None is unlimited."""

    requests_per_minute: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    """Opened streams and sent recordings."""
    streams: Annotated[int, Meta(ge=1)] | None = None
    """Live streams at once."""
    audio_minutes_per_day: Annotated[float, Meta(gt=0)] | None = None
    """Of streams and recordings together."""


NO_LIMITS = Limits()

UsageId = tuple[int, int]
"""(process, number within the process)"""


class Ledger:
    """Past and open usage of all keys."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._open: dict[UsageId, _OpenUsage] = {}

    def begin(self, usage: UsageId, key: str, limits: Limits, scope: Scope, now: float) -> None:
        """Raises TooMany; then nothing is counted."""
        account = self._accounts.setdefault(key, _Account())
        is_stream = scope == "live"
        account.check_requests(limits.requests_per_minute, now)
        if is_stream:
            account.check_streams(limits.streams)
        account.check_audio(limits.audio_minutes_per_day, now)
        account.request_times.append(now)
        account.streams += is_stream
        self._open[usage] = _OpenUsage(account, limits, is_stream)

    def reserve(self, usage: UsageId, seconds: float, now: float) -> None:
        """Reserves announced audio. Raises TooMany if the limit is used up; else a reservation may exceed it."""
        if open_usage := self._open.get(usage):
            open_usage.account.check_audio(open_usage.limits.audio_minutes_per_day, now)
            open_usage.reserved += seconds
            open_usage.account.reserved += seconds

    def spend(self, usage: UsageId, seconds: float, now: float) -> None:
        """Counts received audio. Raises TooMany if it exceeds the reservation and the limit is used up."""
        if open_usage := self._open.get(usage):
            was_reserved = seconds <= open_usage.reserved
            open_usage.release(min(seconds, open_usage.reserved))
            open_usage.account.add_audio(seconds, now)
            if not was_reserved:
                open_usage.account.check_audio(open_usage.limits.audio_minutes_per_day, now)

    def end(self, usage: UsageId) -> None:
        """Ends a usage and releases the rest of its reservation; idempotent."""
        if open_usage := self._open.pop(usage, None):
            open_usage.account.streams -= open_usage.is_stream
            open_usage.release(open_usage.reserved)

    def release_process(self, process: int) -> None:
        """Ends all usages of a process that is gone."""
        for usage in [usage for usage in self._open if usage[0] == process]:
            self.end(usage)


@dataclass(slots=True)
class _Account:
    request_times: deque[float] = field(default_factory=deque)
    """Times of requests in the last minute; at most as many as the limit."""
    streams: int = 0
    audio: deque[list[float]] = field(default_factory=deque)
    """[end of a quarter of an hour, seconds of audio in it], for the last day."""
    reserved: float = 0.0
    """Seconds that open usages have reserved and not spent."""

    def check_requests(self, limit: int | None, now: float) -> None:
        while self.request_times and self.request_times[0] + MINUTE <= now:
            self.request_times.popleft()
        if limit is None:
            self.request_times.clear()
        elif len(self.request_times) >= limit:
            retry = self.request_times[-limit] + MINUTE - now
            raise TooMany(f"request limit of the key reached: {limit} per minute", _retry_hint(retry), retry)

    def check_streams(self, limit: int | None) -> None:
        if limit is not None and self.streams >= limit:
            message = f"the key may have {limit} streams at once, and {self.streams} are open"
            raise TooMany(message, "close one, or use a key with a higher limit", STREAM_RETRY)

    def check_audio(self, max_minutes: float | None, now: float) -> None:
        while self.audio and self.audio[0][0] + DAY <= now:
            self.audio.popleft()
        if max_minutes is None:
            return
        used = sum(seconds for _, seconds in self.audio)
        if used + self.reserved < 60 * max_minutes:
            return
        if used < 60 * max_minutes:
            message = f"audio limit of the key: recordings in progress reserve all of {max_minutes:g} minutes per day"
            raise TooMany(message, "retry when they are transcribed", RESERVED_RETRY)
        for end, seconds in self.audio:
            used -= seconds
            if used < 60 * max_minutes:
                retry = end + DAY - now
                message = f"audio limit of the key reached: {max_minutes:g} minutes per day"
                raise TooMany(message, _retry_hint(retry), retry)

    def add_audio(self, seconds: float, now: float) -> None:
        end = (now // QUARTER + 1) * QUARTER
        if not self.audio or self.audio[-1][0] < end:
            self.audio.append([end, 0.0])
        self.audio[-1][1] += seconds


@dataclass(slots=True)
class _OpenUsage:
    account: _Account
    limits: Limits
    is_stream: bool
    reserved: float = 0.0
    """Seconds that are not spent yet."""

    def release(self, seconds: float) -> None:
        self.reserved -= seconds
        self.account.reserved -= seconds


def _retry_hint(seconds: float) -> str:
    delay = f"{seconds:.0f} s" if seconds < 2 * MINUTE else f"{seconds / MINUTE:.0f} minutes"
    return f"retry in {delay}, or use a key with a higher limit"
