"""Interface of the runners that transcribe clips, for all backends."""

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
    """Encodes samples, and holds the decoder for the result."""

    config: NetworkConfig
    description: str
    """Backend, precision and device for logs and reports: "onnx int8, 2 threads"."""

    @property
    def decoder(self) -> ClipDecoder: ...

    @property
    def device(self) -> Device:
        """The device that the encoder and the decoder run on."""
        ...

    def encode(self, samples: Any, lengths: Any, prompts: np.ndarray | None = None) -> Preemptible[tuple[Any, Any]]:
        """samples [B, N] at 16 kHz, lengths [B], language prompts [B] -> encoded [B, S, D], counts [B] for the decoder.

        Samples and lengths are arrays, or tensors on the device (see `cuda/upload.py`).
        """
        ...
