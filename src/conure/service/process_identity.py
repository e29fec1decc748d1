"""Which of the server's processes this one is, and where it finds the others."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["SINGLE_PROCESS", "ProcessIdentity"]

NUMBER_BITS = 20
"""Of a stream's number are its own; those above are its process."""


@dataclass(frozen=True)
class ProcessIdentity:
    number: int = 0
    """No other process has had it since the server started; 0 is a server of one process."""
    process_count: int = 1
    """How many there are that hold connections."""
    socket_folder: Path | None = None
    """Where they listen for each other."""
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    """Known to all of them, and to nobody else."""

    def stream_numbers(self) -> Iterator[int]:
        """Of streams, for clients that know them by number; no other process gives the same."""
        return itertools.count((self.number << NUMBER_BITS) + 1)

    def prefix_token(self, token: str) -> str:
        """A token that tells where its stream is."""
        return f"{self.number}.{token}" if self.number else token

    def remote_socket(self, token: str) -> Path | None:
        """Where the process listens whose token it is; None for one of this process, and for one that is no token."""
        number, dot, _ = token.partition(".")
        if not dot or self.socket_folder is None or not (number.isascii() and number.isdecimal()):
            return None
        return None if int(number) == self.number else self.server_socket(int(number))

    @property
    def own_socket(self) -> Path | None:
        return self.server_socket(self.number)

    @property
    def engine_socket(self) -> Path:
        assert self.socket_folder is not None
        return self.socket_folder / "engine"

    def server_socket(self, number: int) -> Path | None:
        return self.socket_folder / f"door-{number}" if self.socket_folder is not None else None

    def share_of(self, whole: int) -> int:
        """This process's part of what is bounded for the whole server; at least 1."""
        return max(whole // self.process_count, 1)


SINGLE_PROCESS = ProcessIdentity()
