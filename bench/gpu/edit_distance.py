"""How far lists of tokens are apart: insertions, removals and exchanges."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["edits"]


def edits(found: Sequence[Sequence[int]], expected: Sequence[Sequence[int]]) -> int:
    """Of all rows together."""
    return sum(_distance(mine, other) for mine, other in zip(found, expected, strict=True) if mine != other)


def _distance(found: Sequence[int], expected: Sequence[int]) -> int:
    row = list(range(len(expected) + 1))
    for at, token in enumerate(found, 1):
        corner, row[0] = row[0], at
        for place, other in enumerate(expected, 1):
            changed = corner + (token != other)
            corner = row[place]
            row[place] = min(changed, corner + 1, row[place - 1] + 1)
    return row[-1]
