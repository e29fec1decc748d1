"""Clips to a padded batch, and batches to the device that computes them.

On CUDA a batch is padded into pinned memory and copied, both while the batch before it is computed; what was pinned
is used again as soon as it was copied, which torch's allocator sees to. Two batches of samples are on the device then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from conure.engine.ahead import ahead

__all__ = ["Padded", "pad", "uploads"]

MIN_SAMPLES = 1600
"""A tenth of a second: shorter clips get silence after them, for networks need a few steps to stand on."""

Padded = tuple[Tensor, Tensor]
"""Samples [B, N] and lengths [B]."""


def pad(clips: Sequence[np.ndarray], pinned: bool = False) -> Padded:
    """Mono float32 clips, each [N], on the host."""
    lengths = [max(len(clip), MIN_SAMPLES) for clip in clips]
    samples = torch.empty(len(clips), max(lengths), pin_memory=pinned)
    rows = samples.numpy()
    for row, clip in zip(rows, clips, strict=True):
        row[: len(clip)] = clip
        row[len(clip) :] = 0.0
    return samples, torch.tensor(lengths, pin_memory=pinned)


def uploads(batches: Iterable[Sequence[np.ndarray]], device: torch.device) -> Iterator[Padded]:
    """Each batch padded, in the order given: on the host for the CPU, else on the device."""
    if device.type != "cuda":
        return map(pad, batches)
    return _arrived(batches, device)


def _arrived(batches: Iterable[Sequence[np.ndarray]], device: torch.device) -> Iterator[Padded]:
    side = _stream(device)

    def send(clips: Sequence[np.ndarray]) -> tuple[Tensor, Tensor, torch.cuda.Event]:
        samples, lengths = pad(clips, pinned=True)
        with torch.cuda.stream(side):
            sent = samples.to(device, non_blocking=True), lengths.to(device, non_blocking=True)
            return *sent, side.record_event()

    for samples, lengths, arrived in ahead(map(send, batches), "conure-upload"):
        stream = torch.cuda.current_stream(device)
        stream.wait_event(arrived)
        for part in (samples, lengths):
            part.record_stream(stream)  # its memory was the side stream's, which would give it away too early
        yield samples, lengths


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all uploads: torch has 32 and hands them out again, to whoever records on one, too."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
