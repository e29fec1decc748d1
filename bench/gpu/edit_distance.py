"""Levenshtein distance of lists of tokens."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["edit_distance"]


def edit_distance(found: Sequence[Sequence[int]], expected: Sequence[Sequence[int]]) -> int:
    """Sum over all rows."""
    return sum(_distance(mine, other) for mine, other in zip(found, expected, strict=True) if mine != other)


def _distance(found: Sequence[int], expected: Sequence[int]) -> int:
    row = list(range(len(expected) + 1))
    for at, token in enumerate(found, 1):
        corner, row[0] = row[0], at
        for index, other in enumerate(expected, 1):
            changed = corner + (token != other)
            corner = row[index]
            row[index] = min(changed, corner + 1, row[index - 1] + 1)
    return row[-1]
