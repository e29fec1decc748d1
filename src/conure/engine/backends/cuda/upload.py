"""Uploads batches of clips to a GPU.

A batch is padded into pinned memory and copied while the previous batch is computed, so two batches of samples are on
the device. torch's allocator reuses pinned memory as soon as it has been copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from conure.engine.backends.device import Device
from conure.engine.backends.padding import PaddedBatch, fill_rows, padded_lengths
from conure.engine.prefetch import prefetch

__all__ = ["pad_pinned", "upload_batches"]


def pad_pinned(clips: Sequence[np.ndarray]) -> PaddedBatch:
    """Like `pad`, in pinned memory."""
    lengths = padded_lengths(clips)
    samples = torch.empty(len(clips), int(lengths.max()), pin_memory=True)
    fill_rows(samples.numpy(), clips)
    return samples, torch.from_numpy(lengths).pin_memory()


def upload_batches(batches: Iterable[Sequence[np.ndarray]], device: Device) -> Iterator[PaddedBatch]:
    """Pads each batch, in order, and uploads it."""
    return _uploaded(batches, torch.device(str(device)))


def _uploaded(batches: Iterable[Sequence[np.ndarray]], device: torch.device) -> Iterator[PaddedBatch]:
    side = _upload_stream(device)

    def upload(clips: Sequence[np.ndarray]) -> tuple[Tensor, Tensor, torch.cuda.Event]:
        samples, lengths = pad_pinned(clips)
        with torch.cuda.stream(side):
            copies = samples.to(device, non_blocking=True), lengths.to(device, non_blocking=True)
            return *copies, side.record_event()

    for samples, lengths, arrived in prefetch(map(upload, batches), "conure-upload"):
        stream = torch.cuda.current_stream(device)
        stream.wait_event(arrived)
        for part in (samples, lengths):
            part.record_stream(stream)  # else the side stream would reuse its memory too early
        yield samples, lengths


@cache
def _upload_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all uploads: torch has a pool of 32 and would hand out capture streams again."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
