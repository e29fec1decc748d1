"""Authentication and usage limits: protocols identify a caller, services count its usage.

    protocol  secret ──> `Access.identify` ──> Caller, or Unauthorized
    service   Caller ──> `begin_usage` ──> Usage, or Forbidden, or TooMany ──> `spend` seconds of audio ──> `close`

Each protocol extracts the secret in its own way; only this package knows what it permits.
"""

from __future__ import annotations

from typing import Literal, Protocol

__all__ = ["ANONYMOUS", "UNLIMITED", "Access", "AnonymousAccess", "Caller", "Scope", "Usage"]

Scope = Literal["live", "files", "status"]
"""What a key permits: live streams, recordings, or the status of the server."""


class Usage(Protocol):
    """Usage of one stream or one recording of a caller."""

    async def reserve(self, seconds: float) -> None:
        """Reserves announced audio for this usage until `close`; it is spent first.

        Raises TooMany if the limit is used up. A caller that has anything left may reserve more than that.
        """
        ...

    def spend(self, seconds: float) -> None:
        """Counts received audio. Raises TooMany if the limit is used up and the audio exceeds the reservation."""
        ...

    def close(self) -> None:
        """Ends the usage; idempotent."""
        ...


class Caller(Protocol):
    """An identified client."""

    @property
    def name(self) -> str:
        """Name of the key, for the log; empty if there are no keys."""
        ...

    async def begin_usage(self, scope: Scope) -> Usage:
        """Raises Forbidden, TooMany (with the seconds after which to retry), or Unauthorized for a removed key."""
        ...


class Access(Protocol):
    @property
    def needs_key(self) -> bool: ...

    def identify(self, secret: str | None) -> Caller:
        """Raises Unauthorized if a key is required and this is not a valid one."""
        ...

    def is_valid_key(self, secret: str) -> bool:
        """Whether `identify` accepts it; nothing is counted or logged."""
        ...

    def caller_named(self, name: str) -> Caller:
        """A caller that was identified before. Raises Unauthorized if its key was removed."""
        ...


class _UnlimitedUsage:
    async def reserve(self, seconds: float) -> None:
        pass

    def spend(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass


UNLIMITED: Usage = _UnlimitedUsage()


class _AnonymousCaller:
    name = ""

    async def begin_usage(self, scope: Scope) -> Usage:
        return UNLIMITED


ANONYMOUS: Caller = _AnonymousCaller()


class AnonymousAccess:
    """Access to a server without keys."""

    needs_key = False

    def identify(self, secret: str | None) -> Caller:
        return ANONYMOUS

    def is_valid_key(self, secret: str) -> bool:
        return True

    def caller_named(self, name: str) -> Caller:
        return ANONYMOUS
