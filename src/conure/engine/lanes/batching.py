"""Groups clips into batches, and rounds the length that a batch is padded to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["form_batches", "padded_steps"]

MIN_BUCKET = 8
"""Encoder frames: rows of so many half floats are aligned to 16 bytes, as fast kernels require."""
BUCKETS_PER_OCTAVE = 32
"""So that no clip over 20 s is padded by more than 1/32, and there are 47 lengths up to 30 s."""


def form_batches(lengths: Sequence[int], limit: int, long_clip: int | None = None) -> Iterator[list[int]]:
    """Indices of clips, longest first, so that the count of a batch times its longest clip stays within `limit`.

    Clips longer than `long_clip` share no batch with shorter ones.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        longest = lengths[batch[0]] if batch else lengths[index]
        ends_long = long_clip is not None and longest > long_clip >= lengths[index]
        if batch and (ends_long or longest * (len(batch) + 1) > limit):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def padded_steps(steps: int) -> int:
    """Rounds encoder frames (at least 1) up to one of few lengths, for backends where each new length has a cost."""
    size = max(MIN_BUCKET, (1 << steps.bit_length() - 1) // BUCKETS_PER_OCTAVE)
    return -(-steps // size) * size
