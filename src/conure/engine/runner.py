"""What runs a network: one interface, whatever computes behind it."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from conure.engine.clip_decoder import ClipDecoder
from conure.models.network import Heads
from conure.models.slices import Slices

__all__ = ["Runner", "RunnerName"]

RunnerName = Literal["torch", "onnx-int8", "onnx-fp32"]


class Runner(Protocol):
    """Samples to what the heads read, and the heads, which one decoding loop asks."""

    heads: Heads
    description: str
    """What runs where, for people: "onnx int8, 2 threads"."""

    @property
    def decoder(self) -> ClipDecoder: ...

    def encode(self, samples: Tensor, lengths: Tensor, prompts: Tensor | None = None) -> Slices[tuple[Tensor, Tensor]]:
        """samples [B, N] at 16 kHz, lengths [B], prompt slots [B] -> encoded [B, S, D], counts [B].

        Both are where the heads are, in their type.
        """
        ...
