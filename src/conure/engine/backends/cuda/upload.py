"""Batches of clips to the device that computes them.

A batch is padded into pinned memory and copied, both while the batch before it is computed; what was pinned
is used again as soon as it was copied, which torch's allocator sees to. Two batches of samples are on the device then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from conure.engine.backends.device import Device
from conure.engine.backends.padding import PaddedBatch, fill, lengths_of
from conure.engine.prefetch import prefetch

__all__ = ["pad_pinned", "uploads"]


def pad_pinned(clips: Sequence[np.ndarray]) -> PaddedBatch:
    """As `pad` has it, in pinned memory."""
    lengths = lengths_of(clips)
    samples = torch.empty(len(clips), int(lengths.max()), pin_memory=True)
    fill(samples.numpy(), clips)
    return samples, torch.from_numpy(lengths).pin_memory()


def uploads(batches: Iterable[Sequence[np.ndarray]], device: Device) -> Iterator[PaddedBatch]:
    """Each batch padded, in the order given, on the device."""
    return _arrived(batches, torch.device(str(device)))


def _arrived(batches: Iterable[Sequence[np.ndarray]], device: torch.device) -> Iterator[PaddedBatch]:
    side = _stream(device)

    def send(clips: Sequence[np.ndarray]) -> tuple[Tensor, Tensor, torch.cuda.Event]:
        samples, lengths = pad_pinned(clips)
        with torch.cuda.stream(side):
            sent = samples.to(device, non_blocking=True), lengths.to(device, non_blocking=True)
            return *sent, side.record_event()

    for samples, lengths, arrived in prefetch(map(send, batches), "conure-upload"):
        stream = torch.cuda.current_stream(device)
        stream.wait_event(arrived)
        for part in (samples, lengths):
            part.record_stream(stream)  # its memory was the side stream's, which would give it away too early
        yield samples, lengths


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all uploads: torch has 32 and hands them out again, to whoever records on one, too."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
