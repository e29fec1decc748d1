"""Linear layers in 8-bit floats (e4m3), which a Hopper GPU multiplies twice as fast as half floats.

Weights have one scale per output, activations one per row, computed on the fly. Products accumulate in float32; outputs
are bfloat16. For inference, and only after the encoder has been moved to its device and type: casting a module to
another type would cast its 8-bit weights, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conure.models.folded_encoder import FoldedEncoder
from conure.models.folded_layers import FoldedLayer

__all__ = ["PRODUCTS", "Fp8Linear", "quantise"]

FP8 = torch.float8_e4m3fn
MAX_FP8 = torch.finfo(FP8).max
MIN_ABSOLUTE = 1e-20
"""Lower bound of a row's maximum, so that a row of zeros has a scale."""
PRODUCTS = ("up1", "down1", "project", "out", "mix1", "mix2", "up2", "down2")
"""The linear layers of a folded layer that are quantised: all but the projection of positions, which runs once."""


class Fp8Linear(nn.Module):
    """Replaces a linear layer whose sizes are multiples of 16."""

    weight: Tensor
    """[out, in] in 8 bits."""
    scale: Tensor
    """Of the weights, [1, out] in float32."""
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = _eight_bits(linear.weight.detach().float())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.T.contiguous())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out] in bfloat16."""
        rows, scale = _eight_bits(x.flatten(0, -2))
        out = torch._scaled_mm(
            rows, self.weight.T, scale, self.scale, bias=self.bias, out_dtype=torch.bfloat16, use_fast_accum=True
        )
        return out.view(*x.shape[:-1], -1)

    def forward_reference(self, x: Tensor) -> Tensor:
        """Reference implementation of `forward`: the same quantised values, multiplied in float32."""
        rows, scale = _eight_bits(x)
        bias = None if self.bias is None else self.bias.float()
        return F.linear(rows.float() * scale, self.weight.float() * self.scale.T, bias)


def quantise(encoder: FoldedEncoder, products: Sequence[str] = PRODUCTS) -> None:
    """Replaces the linear layers `products` of every layer, in place."""
    for layer in encoder.layers:
        assert isinstance(layer, FoldedLayer)
        for name in products:
            setattr(layer, name, Fp8Linear(getattr(layer, name)))


def _eight_bits(x: Tensor) -> tuple[Tensor, Tensor]:
    """[..., N] -> the values in 8 bits and their scales, [..., 1] in float32."""
    scale = x.abs().amax(-1, keepdim=True).float().clamp(min=MIN_ABSOLUTE) / MAX_FP8
    return (x.float() / scale).to(FP8), scale
