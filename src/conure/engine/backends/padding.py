"""Clips to a padded batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from conure.engine.backends.device import Device

__all__ = ["PaddedBatch", "fill", "lengths_of", "pad", "padded_batches", "pad_for_device"]

MIN_SAMPLES = 1600
"""A tenth of a second: shorter clips get silence after them, for networks need a few steps to stand on."""

PaddedBatch = tuple[Any, Any]
"""Samples [B, N] and lengths [B]: arrays, or tensors for a device."""


def pad(clips: Sequence[np.ndarray]) -> PaddedBatch:
    """Mono float32 clips, each [N]."""
    lengths = lengths_of(clips)
    samples = np.empty((len(clips), lengths.max()), np.float32)
    fill(samples, clips)
    return samples, lengths


def pad_for_device(device: Device, clips: Sequence[np.ndarray]) -> PaddedBatch:
    """On the host; in memory that a card can read by itself."""
    if device.type != "cuda":
        return pad(clips)
    from conure.engine.backends.cuda.upload import pad_pinned  # noqa: PLC0415  it loads torch

    return pad_pinned(clips)


def padded_batches(device: Device, batches: Iterable[Sequence[np.ndarray]]) -> Iterator[PaddedBatch]:
    """Each batch padded, in the order given: on the host for the CPU, else on the device."""
    if device.type != "cuda":
        return map(pad, batches)
    from conure.engine.backends.cuda.upload import uploads  # noqa: PLC0415  it loads torch

    return uploads(batches, device)


def lengths_of(clips: Sequence[np.ndarray]) -> np.ndarray:
    """[B], of what is heard of each."""
    return np.array([max(len(clip), MIN_SAMPLES) for clip in clips])


def fill(samples: np.ndarray, clips: Sequence[np.ndarray]) -> None:
    """Writes clips into rows [B, N], and silence after them."""
    for row, clip in zip(samples, clips, strict=True):
        row[: len(clip)] = clip
        row[len(clip) :] = 0.0
