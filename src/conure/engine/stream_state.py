"""Everything a model remembers of its live streams: one row a slot, and the scratch row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from conure.decoding.transducer import TransducerState
from conure.models.config import NetworkConfig
from conure.models.network import Heads

__all__ = ["Memory", "Rows", "StreamState"]


class Rows(Protocol):
    """What a runner's encoder remembers, row by row, in a form that is the runner's own business."""

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        ...

    def reset(self, rows: Tensor) -> None:
        """Makes rows ready for new streams."""
        ...


Memory = TypeVar("Memory", bound=Rows)


@dataclass(frozen=True)
class StreamState(Generic[Memory]):
    encoder: Memory
    decoder: TransducerState
    unspoken: TransducerState
    """One row that has decoded nothing."""

    @staticmethod
    def allocate(encoder: Memory, heads: Heads, rows: int) -> StreamState[Memory]:
        """Fresh rows beside those of the encoder."""
        unspoken = TransducerState.start(heads, 1)
        return StreamState(encoder, unspoken.repeated(rows), unspoken)

    @staticmethod
    def decoder_bytes(config: NetworkConfig) -> int:
        """What a row of the decoder takes, which is in float32 everywhere."""
        numbers = 2 * config.predictor_layers * config.predictor_width + config.joint_width
        return torch.float32.itemsize * numbers + 2 * torch.long.itemsize

    def reset(self, rows: Tensor) -> None:
        """Makes rows ready for new streams."""
        self.encoder.reset(rows)
        self.decoder.scatter(rows, self.unspoken.repeated(len(rows)))
