"""The encoder state of cache-aware streams, stored by slot and updated in place.

Step t of a stream is at index t % L of its slot's keys and values, so a chunk writes its own steps and moves no others.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from conure.models.config import EncoderConfig
from conure.models.encoder_state import EncoderState

__all__ = ["RingState"]


@dataclass(frozen=True)
class RingState:
    subsampling: tuple[Tensor, ...]
    """The frame before the chunk at each convolution, [slots, channels, 1, bands]."""
    keys: Tensor
    """[layers, slots, heads, L, D / heads]."""
    values: Tensor
    convolution: Tensor
    """The last gated steps of each layer, newest last, [layers, slots, kernel - 1, D]."""

    @staticmethod
    def allocate(config: EncoderConfig, slots: int, past: int, like: Tensor) -> RingState:
        """Tensors of the type and on the device of `like`. The content of a slot whose stream has age 0 is ignored."""
        rows = EncoderState.allocate(config, slots, past, like)
        convolution = rows.convolution.transpose(2, 3).contiguous()
        return RingState(rows.subsampling, rows.keys, rows.values, convolution)

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.subsampling, self.keys, self.values, self.convolution))
