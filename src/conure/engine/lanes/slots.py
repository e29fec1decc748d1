"""Slots of a streaming model's state, and the leases of streams that use them.

A lease number is never used again, so results for a stream that has ended cannot be mistaken for those of the next one
in its slot. The slot after the last is the scratch slot, which padding rows read and write.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Lease", "Slots"]


@dataclass(frozen=True, slots=True)
class Lease:
    slot: int
    number: int


class Slots:
    """`count` slots. The lowest free one is leased first, which keeps the slots in use close together."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.scratch = count
        self._free = list(range(count - 1, -1, -1))
        self._numbers: list[int | None] = [None] * count
        self._next_number = 0

    @property
    def free(self) -> int:
        return len(self._free)

    def lease(self) -> Lease | None:
        """None when all slots are in use."""
        if not self._free:
            return None
        slot = self._free.pop()
        self._numbers[slot] = number = self._next_number
        self._next_number += 1
        return Lease(slot, number)

    def is_valid(self, lease: Lease) -> bool:
        return self._numbers[lease.slot] == lease.number

    def release(self, lease: Lease) -> None:
        """Raises ValueError for a lease that has ended."""
        if not self.is_valid(lease):
            raise ValueError(f"lease {lease.number} of slot {lease.slot} has ended")
        self._numbers[lease.slot] = None
        self._free.append(lease.slot)
        self._free.sort(reverse=True)
