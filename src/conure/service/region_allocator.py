"""Allocates regions of different sizes in one block of memory; they may be freed in any order."""

from __future__ import annotations

from bisect import insort

__all__ = ["RegionAllocator"]


class RegionAllocator:
    """Only does the bookkeeping; holds no memory."""

    def __init__(self, size: int, max_regions: int) -> None:
        """`max_regions`: regions that may be allocated at once."""
        self.size = size
        self.max_regions = max_regions
        self._regions: list[tuple[int, int]] = []
        """(begin, end), ascending."""

    def allocate(self, count: int) -> int | None:
        """First offset where so many elements fit; None if none is free now. Raises ValueError if they never fit."""
        if count > self.size:
            raise ValueError(f"{count} do not fit into {self.size}")
        if len(self._regions) == self.max_regions:
            return None
        ends = [0, *(end for _, end in self._regions)]
        begins = [*(begin for begin, _ in self._regions), self.size]
        offset = next((end for end, begin in zip(ends, begins, strict=True) if begin - end >= count), None)
        if offset is not None:
            insort(self._regions, (offset, offset + count))
        return offset

    def free(self, offset: int) -> None:
        """Frees the region at that offset."""
        self._regions = [region for region in self._regions if region[0] != offset]
