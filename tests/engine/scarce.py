"""A runner on a device with little memory: raises torch's error in the middle of a batch."""

from __future__ import annotations

from typing import Any

import torch

from conure.engine.backends.clip_runner import ClipRunner
from conure.models.preemptible import Preemptible

__all__ = ["ScarceRunner"]

RATE = 16_000


class ScarceRunner:
    """Has memory for a number of seconds, padding counted."""

    description = "scarce"

    def __init__(self, runner: ClipRunner, seconds: float) -> None:
        self.runner, self.seconds = runner, seconds
        self.config, self.device, self.decoder = runner.config, runner.device, runner.decoder
        self.tried: list[float] = []

    def encode(self, samples: Any, lengths: Any, prompts: Any = None) -> Preemptible[tuple[Any, Any]]:
        slices = self.runner.encode(samples, lengths, prompts)
        self.tried.append(samples.size / RATE)
        if samples.size > self.seconds * RATE:
            next(slices)
            yield
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return (yield from slices)
