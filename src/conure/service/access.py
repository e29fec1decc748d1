"""Who may come in, and how much of it each may have.

    a door     secret ──> `Access.identify` ──> Caller, or Unauthorized
    a service  Caller ──> `Caller.begin` ──> Visit, or Forbidden, or TooMany ──> `spend` seconds of audio ──> `close`

Doors find the secret where their protocol has it; what it allows is known here alone.
"""

from __future__ import annotations

from typing import Literal, Protocol

__all__ = ["ANONYMOUS", "UNLIMITED", "Access", "AnonymousAccess", "Caller", "Scope", "Usage"]

Scope = Literal["live", "files", "status"]
"""What a key may be for: live streams, recordings, and what the server tells of itself."""


class Usage(Protocol):
    """One stream or one recording of a caller."""

    async def reserve(self, seconds: float) -> None:
        """So much audio is announced: it is spent first, and nobody else can have it until `close`.

        Raises TooMany where nothing is left. A caller that has something left may reserve more than that.
        """
        ...

    def spend(self, seconds: float) -> None:
        """So much audio came. Raises TooMany where the caller has had all that it may have, and for what comes beyond
        its reservation."""
        ...

    def close(self) -> None:
        """It is over; more than once does no harm."""
        ...


class Caller(Protocol):
    @property
    def name(self) -> str:
        """Of its key, for the log; empty where there are no keys."""
        ...

    async def begin_usage(self, scope: Scope) -> Usage:
        """Raises Forbidden, TooMany with the seconds after which it may try again, or Unauthorized for a key that
        was removed."""
        ...


class Access(Protocol):
    @property
    def needs_key(self) -> bool: ...

    def identify(self, secret: str | None) -> Caller:
        """Raises Unauthorized where a key is needed and this is none."""
        ...

    def is_valid_key(self, secret: str) -> bool:
        """Whether it is one that `identify` takes; nothing is counted."""
        ...

    def caller_named(self, name: str) -> Caller:
        """One that was identified before. Raises Unauthorized where its key is gone."""
        ...


class _Free:
    async def reserve(self, seconds: float) -> None:
        pass

    def spend(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass


UNLIMITED: Usage = _Free()
"""Of a caller who may have as much as there is."""


class _Nobody:
    name = ""

    async def begin_usage(self, scope: Scope) -> Usage:
        return UNLIMITED


ANONYMOUS: Caller = _Nobody()


class AnonymousAccess:
    """Of a server without keys."""

    needs_key = False

    def identify(self, secret: str | None) -> Caller:
        return ANONYMOUS

    def is_valid_key(self, secret: str) -> bool:
        return True

    def caller_named(self, name: str) -> Caller:
        return ANONYMOUS
