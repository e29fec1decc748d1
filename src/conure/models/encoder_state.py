"""The encoder state of cache-aware streams between chunks: tensors with one row per stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from conure.models.config import EncoderConfig

__all__ = ["EncoderState"]


@dataclass(frozen=True)
class EncoderState:
    """B rows of any age; the other tensors of a row that has not `started` are undefined."""

    subsampling: tuple[Tensor, ...]
    """The frame before the chunk at each convolution, [B, channels, 1, bands]."""
    keys: Tensor
    """[layers, B, heads, L, D / heads], newest last."""
    values: Tensor
    convolution: Tensor
    """[layers, B, D, kernel - 1]."""
    length: Tensor
    """Number of valid cached steps, [B]."""
    started: Tensor
    """False until the row's first chunk, bool [B]."""

    @staticmethod
    def allocate(config: EncoderConfig, rows: int, past: int, like: Tensor) -> EncoderState:
        """Fresh rows that cache `past` steps, of the type and on the device of `like`."""
        bands = _bands(config)
        channels = (1, config.channels, config.channels)
        keys = like.new_zeros(config.layers, rows, config.heads, past, config.width // config.heads)
        return EncoderState(
            tuple(like.new_zeros(rows, c, 1, b) for c, b in zip(channels, bands, strict=True)),
            keys,
            torch.zeros_like(keys),
            like.new_zeros(config.layers, rows, config.width, config.kernel - 1),
            torch.zeros(rows, dtype=torch.long, device=like.device),
            torch.zeros(rows, dtype=torch.bool, device=like.device),
        )

    @staticmethod
    def row_bytes(config: EncoderConfig, past: int, size: int) -> int:
        """Memory of a row, with `size` bytes per number."""
        channels = (1, config.channels, config.channels)
        subsampling = sum(c * b for c, b in zip(channels, _bands(config), strict=True))
        layer = config.width * (2 * past + config.kernel - 1)
        return size * (subsampling + config.layers * layer) + torch.long.itemsize + torch.bool.itemsize

    @property
    def bytes(self) -> int:
        tensors = (*self.subsampling, self.keys, self.values, self.convolution, self.length, self.started)
        return sum(tensor.nbytes for tensor in tensors)

    def gather(self, rows: Tensor) -> EncoderState:
        """A copy of the given rows, in that order."""
        return EncoderState(
            tuple(cache[rows] for cache in self.subsampling),
            self.keys[:, rows],
            self.values[:, rows],
            self.convolution[:, rows],
            self.length[rows],
            self.started[rows],
        )

    def scatter(self, rows: Tensor, other: EncoderState) -> None:
        """Writes the rows of `other` back in place."""
        for mine, theirs in zip(self.subsampling, other.subsampling, strict=True):
            mine[rows] = theirs
        self.keys[:, rows] = other.keys
        self.values[:, rows] = other.values
        self.convolution[:, rows] = other.convolution
        self.length[rows] = other.length
        self.started[rows] = other.started

    def reset(self, rows: Tensor | np.ndarray) -> None:
        """Prepares rows for new streams; their old caches are not read any more."""
        self.started[torch.as_tensor(rows, device=self.started.device)] = False

    def keep_rows(self, keep: Tensor, old: EncoderState) -> EncoderState:
        """The rows of `old` where `keep` [B] is true, those of this state elsewhere."""

        def pick(new: Tensor, before: Tensor, axis: int) -> Tensor:
            shape = [1] * new.dim()
            shape[axis] = -1
            return torch.where(keep.view(shape), before, new)

        pairs = zip(self.subsampling, old.subsampling, strict=True)
        return EncoderState(
            tuple(pick(new, before, 0) for new, before in pairs),
            pick(self.keys, old.keys, 1),
            pick(self.values, old.values, 1),
            pick(self.convolution, old.convolution, 1),
            pick(self.length, old.length, 0),
            pick(self.started, old.started, 0),
        )


def _bands(config: EncoderConfig) -> tuple[int, int, int]:
    """Frequency bands of the mel and after each of the first two convolutions."""
    first = config.features // 2 + 1
    return config.features, first, first // 2 + 1
