"""Places for pieces of different sizes in one stretch of memory, taken and freed in any order."""

from __future__ import annotations

from bisect import insort

__all__ = ["RegionAllocator"]


class RegionAllocator:
    """Knows what is taken; holds no memory itself."""

    def __init__(self, size: int, most: int) -> None:
        """`most`: pieces that may be there at a time."""
        self.size = size
        self.max_regions = most
        self._taken: list[tuple[int, int]] = []
        """(begin, end) of each piece, in order."""

    def allocate(self, count: int) -> int | None:
        """Where so many fit, as near to the beginning as can be; None where they do not now.

        Raises ValueError where they never will.
        """
        if count > self.size:
            raise ValueError(f"{count} do not fit into {self.size}")
        if len(self._taken) == self.max_regions:
            return None
        ends = [0, *(end for _, end in self._taken)]
        begins = [*(begin for begin, _ in self._taken), self.size]
        at = next((end for end, begin in zip(ends, begins, strict=True) if begin - end >= count), None)
        if at is not None:
            insort(self._taken, (at, at + count))
        return at

    def free(self, at: int) -> None:
        """The piece that begins there is not needed any more."""
        self._taken = [piece for piece in self._taken if piece[0] != at]
