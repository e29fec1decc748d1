"""The encoder with folded layers (see `folded_layers`). Its reference implementation is `conformer.Encoder`."""

from __future__ import annotations

from torch import Tensor, nn

from conure.models.conformer import Encoder
from conure.models.folded_layers import FoldedLayer

__all__ = ["FoldedEncoder"]

MAX_CACHED_REACH = 4096
"""Steps (5.5 minutes) up to which projected positions are cached: 0.8 GB for 24 layers of width 1,024 in half
precision."""
MIN_CACHED_REACH = 256


class FoldedEncoder(Encoder):
    """Replaces the encoder that it is made from, for inference only; caches projected positions."""

    def __init__(self, encoder: Encoder) -> None:
        nn.Module.__init__(self)
        self.config, self.pre_encode, self.dropout = encoder.config, encoder.pre_encode, encoder.dropout
        self.speaker_kernels, self.background_kernels = encoder.speaker_kernels, encoder.background_kernels
        self.layers = nn.ModuleList(FoldedLayer(layer) for layer in encoder._layers())
        self._reach = 0
        self._tables: list[Tensor] = []

    def positions(self, first: int, last: int) -> list[Tensor]:
        reach = max(first, -last)
        if reach > MAX_CACHED_REACH:
            return super().positions(first, last)
        if reach > self._reach:
            self._reach = max(MIN_CACHED_REACH, 1 << (reach - 1).bit_length())
            self._tables = super().positions(self._reach, -self._reach)
        return [table[:, self._reach - first : self._reach - last + 1] for table in self._tables]
