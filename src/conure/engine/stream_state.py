"""Everything a model remembers of its live streams: one row a slot, and the scratch row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from conure.engine.clip_decoder import DecoderRows
from conure.models.config import NetworkConfig

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
    decoder: DecoderRows

    @staticmethod
    def decoder_bytes(config: NetworkConfig) -> int:
        """What a row of the decoder takes, which is in float32 everywhere."""
        numbers = 2 * config.predictor_layers * config.predictor_width + config.joint_width
        return torch.float32.itemsize * numbers + 2 * torch.long.itemsize

    def reset(self, rows: Tensor) -> None:
        """Makes rows ready for new streams."""
        self.encoder.reset(rows)
        self.decoder.reset(rows)
