"""What runs a network on clips: one interface, whatever computes behind it."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np

from conure.engine.backends.decoder import ClipDecoder
from conure.engine.backends.device import Device
from conure.models.config import NetworkConfig
from conure.models.preemptible import Preemptible

__all__ = ["ClipRunner", "RunnerName"]

RunnerName = Literal["torch", "onnx-int8", "onnx-fp32"]


class ClipRunner(Protocol):
    """Samples to what a decoder reads, and the decoder."""

    config: NetworkConfig
    description: str
    """What runs where, for people: "onnx int8, 2 threads"."""

    @property
    def decoder(self) -> ClipDecoder: ...

    @property
    def device(self) -> Device:
        """Where it computes."""
        ...

    def encode(self, samples: Any, lengths: Any, prompts: np.ndarray | None = None) -> Preemptible[tuple[Any, Any]]:
        """samples [B, N] at 16 kHz, lengths [B], prompt slots [B] -> encoded [B, S, D], counts [B] for the decoder.

        Samples and lengths are arrays, or tensors that `upload` brought to the device.
        """
        ...
