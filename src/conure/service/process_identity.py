"""Identity of a server process: its number, and the sockets of the other processes."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["SINGLE_PROCESS", "ProcessIdentity"]

NUMBER_BITS = 20
"""Low bits of a stream's number, unique in its process; the bits above are the number of the process."""


@dataclass(frozen=True)
class ProcessIdentity:
    number: int = 0
    """Never reused while the server runs; 0 in a server of one process."""
    process_count: int = 1
    """Server processes, which hold connections."""
    socket_folder: Path | None = None
    """Folder of the Unix sockets that the processes use among themselves."""
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    """Shared by all processes of the server."""

    def stream_numbers(self) -> Iterator[int]:
        """Numbers of streams, for protocols that identify streams by number; unique in the whole server."""
        return itertools.count((self.number << NUMBER_BITS) + 1)

    def prefix_token(self, token: str) -> str:
        """The token prefixed with the number of the process that holds its stream."""
        return f"{self.number}.{token}" if self.number else token

    def remote_socket(self, token: str) -> Path | None:
        """Socket of the process that holds the token's stream; None if it is this process, or the token is invalid."""
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
        return self.socket_folder / f"server-{number}" if self.socket_folder is not None else None

    def share_of(self, whole: int) -> int:
        """This process's share of a limit of the whole server; at least 1."""
        return max(whole // self.process_count, 1)


SINGLE_PROCESS = ProcessIdentity()
