"""Which clips share a batch, and the length they are padded to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["form_batches", "bucket"]

LEAST_BUCKET = 8
"""Encoder steps: rows of so many half floats begin at 16 bytes, as fast kernels ask."""
BUCKETS_AN_OCTAVE = 32
"""Then no clip of more than 20 s is padded by more than a 32nd, and up to 30 s there are 47 lengths."""


def form_batches(lengths: Sequence[int], limit: int, apart: int | None = None) -> Iterator[list[int]]:
    """Indices of clips, longest first, so that a batch times its longest clip stays within `limit`.

    Clips longer than `apart` share no batch with the others.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        longest = lengths[batch[0]] if batch else lengths[index]
        parted = apart is not None and longest > apart >= lengths[index]
        if batch and (parted or longest * (len(batch) + 1) > limit):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def bucket(steps: int) -> int:
    """The steps that a batch of so many (at least one) is padded to, where every length costs: few then occur."""
    coarse = max(LEAST_BUCKET, (1 << steps.bit_length() - 1) // BUCKETS_AN_OCTAVE)
    return -(-steps // coarse) * coarse
