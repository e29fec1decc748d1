"""Rows of the streaming batch: who holds which, and under which lease.

A lease is one tenancy of a row. Its number is never used again, so what is computed for a tenant that has gone can be
told from what is for the next one. The row after the last is scratch: padding reads and writes it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Lease", "Slots"]


@dataclass(frozen=True, slots=True)
class Lease:
    row: int
    number: int


class Slots:
    """`count` rows, the lowest free one first: the rows in use stay close together."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.scratch = count
        self._free = list(range(count - 1, -1, -1))
        self._numbers: list[int | None] = [None] * count
        self._next = 0

    @property
    def free(self) -> int:
        return len(self._free)

    def lease(self) -> Lease | None:
        """None where every row is taken."""
        if not self._free:
            return None
        row = self._free.pop()
        self._numbers[row] = number = self._next
        self._next += 1
        return Lease(row, number)

    def holds(self, lease: Lease) -> bool:
        """Whether the lease is still running."""
        return self._numbers[lease.row] == lease.number

    def release(self, lease: Lease) -> None:
        """Raises ValueError for a lease that has ended."""
        if not self.holds(lease):
            raise ValueError(f"lease {lease.number} of row {lease.row} has ended")
        self._numbers[lease.row] = None
        self._free.append(lease.row)
        self._free.sort(reverse=True)
