"""Pads clips to batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from conure.engine.backends.device import Device

__all__ = ["PaddedBatch", "fill_rows", "pad", "pad_for_device", "padded_batches", "padded_lengths"]

MIN_SAMPLES = 1600
"""0.1 s. Shorter clips are padded to it with silence, because networks need a few steps."""

PaddedBatch = tuple[Any, Any]
"""Samples [B, N] and lengths [B], as arrays or tensors."""


def pad(clips: Sequence[np.ndarray]) -> PaddedBatch:
    """Pads mono float32 clips [N] on the host."""
    lengths = padded_lengths(clips)
    samples = np.empty((len(clips), lengths.max()), np.float32)
    fill_rows(samples, clips)
    return samples, lengths


def pad_for_device(device: Device, clips: Sequence[np.ndarray]) -> PaddedBatch:
    """Pads clips on the host, in pinned memory if the device is a GPU."""
    if device.type != "cuda":
        return pad(clips)
    from conure.engine.backends.cuda.upload import pad_pinned  # noqa: PLC0415  it loads torch

    return pad_pinned(clips)


def padded_batches(device: Device, batches: Iterable[Sequence[np.ndarray]]) -> Iterator[PaddedBatch]:
    """Pads each batch, in order. The results are on the device."""
    if device.type != "cuda":
        return map(pad, batches)
    from conure.engine.backends.cuda.upload import upload_batches  # noqa: PLC0415  it loads torch

    return upload_batches(batches, device)


def padded_lengths(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Padded lengths [B]."""
    return np.array([max(len(clip), MIN_SAMPLES) for clip in clips])


def fill_rows(samples: np.ndarray, clips: Sequence[np.ndarray]) -> None:
    """Writes clips into rows [B, N], followed by silence."""
    for row, clip in zip(samples, clips, strict=True):
        row[: len(clip)] = clip
        row[len(clip) :] = 0.0
