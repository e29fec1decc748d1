"""Products in 8-bit floats (e4m3), which a Hopper card multiplies twice as fast as half floats.

Weights have one scale for each output, activations one for each row, found as they come.
Accumulated in float32, given in bfloat16. For inference, after the encoder is where it will be: moving a module to
another type would turn its 8-bit weights into that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conure.models.folded_encoder import FoldedEncoder
from conure.models.folded_layers import FoldedLayer

__all__ = ["PRODUCTS", "Fp8Linear", "quantise"]

TYPE = torch.float8_e4m3fn
LARGEST = torch.finfo(TYPE).max
SMALLEST = 1e-20
"""A row of zeros is divided by this."""
PRODUCTS = ("up1", "down1", "project", "out", "mix1", "mix2", "up2", "down2")
"""Of a folded layer: all but the projection of positions, which is made once."""


class Fp8Linear(nn.Module):
    """Takes the place of a linear layer whose sizes are multiples of 16."""

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
        """The same in float32, of what 8 bits leave of both sides."""
        rows, scale = _eight_bits(x)
        bias = None if self.bias is None else self.bias.float()
        return F.linear(rows.float() * scale, self.weight.float() * self.scale.T, bias)


def quantise(encoder: FoldedEncoder, products: Sequence[str] = PRODUCTS) -> None:
    """Replaces the large products of every layer, or some of them, in place."""
    for layer in encoder.layers:
        assert isinstance(layer, FoldedLayer)
        for name in products:
            setattr(layer, name, Fp8Linear(getattr(layer, name)))


def _eight_bits(x: Tensor) -> tuple[Tensor, Tensor]:
    """[..., N] -> the same in 8 bits and what to multiply it with, [..., 1] in float32."""
    scale = x.abs().amax(-1, keepdim=True).float().clamp(min=SMALLEST) / LARGEST
    return (x.float() / scale).to(TYPE), scale
