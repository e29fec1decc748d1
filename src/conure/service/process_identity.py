"""Which of the server's processes this one is, and where it finds the others."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ALONE", "ProcessIdentity"]

NUMBER_BITS = 20
"""Of a stream's number are its own; those above are its process."""


@dataclass(frozen=True)
class ProcessIdentity:
    number: int = 0
    """No other process has had it since the server started; 0 is a server of one process."""
    among: int = 1
    """How many there are that hold connections."""
    folder: Path | None = None
    """Where they listen for each other."""
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    """Known to all of them, and to nobody else."""

    def numbers(self) -> Iterator[int]:
        """Of streams, for clients that know them by number; no other process gives the same."""
        return itertools.count((self.number << NUMBER_BITS) + 1)

    def sign(self, token: str) -> str:
        """A token that tells where its stream is."""
        return f"{self.number}.{token}" if self.number else token

    def elsewhere(self, token: str) -> Path | None:
        """Where the process listens whose token it is; None for one of this process, and for one that is no token."""
        number, dot, _ = token.partition(".")
        if not dot or self.folder is None or not (number.isascii() and number.isdecimal()):
            return None
        return None if int(number) == self.number else self.door(int(number))

    @property
    def own_door(self) -> Path | None:
        return self.door(self.number)

    @property
    def engine(self) -> Path:
        assert self.folder is not None
        return self.folder / "engine"

    def door(self, number: int) -> Path | None:
        return self.folder / f"door-{number}" if self.folder is not None else None

    def share(self, whole: int) -> int:
        """This process's part of what is bounded for the whole server; at least 1."""
        return max(whole // self.among, 1)


ALONE = ProcessIdentity()
