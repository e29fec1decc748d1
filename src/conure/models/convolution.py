"""The convolution module of a conformer layer: pointwise with gate, depthwise over time, pointwise.

Pointwise convolutions are linear layers here: the same results without a transpose, and as matrix
products they can be quantised. Source: Gulati et al., "Conformer" (2020).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conure.models.config import EncoderConfig

__all__ = ["Convolution"]


class Convolution(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width, reach = config.width, config.kernel - 1
        self.padding = (reach, 0) if config.causal_convolution else (reach // 2, reach - reach // 2)
        self.pointwise_conv1 = nn.Linear(width, 2 * width, bias=config.bias)
        self.depthwise_conv = nn.Conv1d(width, width, config.kernel, groups=width, bias=config.bias)
        # NeMo calls it batch_norm also where it is a LayerNorm, and so do the checkpoints.
        self.batch_norm = nn.LayerNorm(width) if config.norm == "layer_norm" else nn.BatchNorm1d(width)
        self.pointwise_conv2 = nn.Linear(width, width, bias=config.bias)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Whole clips: x [B, T, D], valid [B, T] -> [B, T, D]."""
        return self._filter(F.pad(self._gate(x, valid), self.padding))

    def step(self, x: Tensor, valid: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """One chunk of causal streams: x [B, C, D], cache [B, D, kernel - 1] -> [B, C, D] and new cache."""
        seen = torch.cat([cache, self._gate(x, valid)], 2)
        return self._filter(seen), seen[:, :, -cache.shape[2] :]

    def _gate(self, x: Tensor, valid: Tensor) -> Tensor:
        """[B, T, D] -> [B, D, T], zero where the step is padding."""
        x = F.glu(self.pointwise_conv1(x), -1)
        return x.masked_fill(~valid[..., None], 0.0).transpose(1, 2)

    def _filter(self, x: Tensor) -> Tensor:
        """[B, D, T + kernel - 1] -> [B, T, D]."""
        x = self.depthwise_conv(x)
        if isinstance(self.batch_norm, nn.LayerNorm):
            x = self.batch_norm(x.transpose(1, 2))
        else:
            x = self.batch_norm(x).transpose(1, 2)
        out: Tensor = self.pointwise_conv2(F.silu(x))
        return out
