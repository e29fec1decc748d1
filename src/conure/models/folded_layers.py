"""The encoder's layers for GPUs: constants are folded into the weights, so fewer kernels run.

Queries, keys and values are one product, the factor 1/2 of the feed-forwards is part of their second products, the
statistics of a batch norm are part of the filter. Results equal those of `conformer.Layer` up to rounding. The
attention and the filter are arguments: whole clips and chunks of streams share everything else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conure.fused.clip_attention import attend_clip, attend_relative
from conure.models.attention import Attention
from conure.models.conformer import Layer
from conure.models.convolution import Convolution
from conure.models.global_attention import Projection, attend_with_global_steps
from conure.models.local_attention import attend_locally

__all__ = ["AttendFunction", "Filter", "FoldedLayer", "FilterFunction"]

AttendFunction = Callable[..., Tensor]
"""Queries, keys and values [B, T, h, d] -> [B, T, D]; separate ones of global steps follow if the layer has them."""
FilterFunction = Callable[[Tensor], Tensor]
"""Output of the first pointwise product, [B, T, 2 D] -> gated, filtered over time, normalised, activated: [B, T, D]."""


class Filter(nn.Module):
    """A depthwise filter over time and the norm after it; a batch norm is folded into the filter."""

    weight: Tensor
    """[kernel, D], oldest step first."""
    bias: Tensor

    def __init__(self, convolution: Convolution) -> None:
        super().__init__()
        depthwise, norm = convolution.depthwise_conv, convolution.batch_norm
        weight = depthwise.weight[:, 0].T.float()
        bias = torch.zeros_like(weight[0]) if depthwise.bias is None else depthwise.bias.float()
        self.padding = convolution.padding
        self.norm = norm if isinstance(norm, nn.LayerNorm) else None
        if isinstance(norm, nn.BatchNorm1d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight, bias = weight * scale, norm.bias + (bias - norm.running_mean) * scale
        self.register_buffer("weight", weight.detach().contiguous().to(depthwise.weight.dtype))
        self.register_buffer("bias", bias.detach().to(depthwise.weight.dtype))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Whole clips: x [B, T, 2 D], valid [B, T] -> [B, T, D]."""
        x = F.glu(x, -1).masked_fill(~valid[..., None], 0.0).transpose(1, 2)
        x = F.conv1d(F.pad(x, self.padding), self.weight.T[:, None], self.bias, groups=x.shape[1]).transpose(1, 2)
        return F.silu(self.norm(x) if self.norm is not None else x)


class FoldedLayer(nn.Module):
    """A folded `Layer` with the same inputs and outputs; parameters that do not change are shared with it."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        attention, convolution = layer.self_attn, layer.conv
        self.heads, self.head_width = attention.heads, attention.head_width
        self.norm_feed_forward1 = layer.norm_feed_forward1
        self.up1, self.down1 = layer.feed_forward1.linear1, _scaled(layer.feed_forward1.linear2, 0.5)
        self.norm_attention = layer.norm_self_att
        self.global_steps = attention.global_steps
        self.project = _joined(*_projections(attention))
        self.linear_pos = attention.linear_pos
        self.bias_u, self.bias_v = attention.pos_bias_u, attention.pos_bias_v
        self.out = attention.linear_out
        self.norm_convolution = layer.norm_conv
        self.mix1, self.filter, self.mix2 = (
            convolution.pointwise_conv1,
            Filter(convolution),
            convolution.pointwise_conv2,
        )
        self.norm_feed_forward2 = layer.norm_feed_forward2
        self.up2, self.down2 = layer.feed_forward2.linear1, _scaled(layer.feed_forward2.linear2, 0.5)
        self.norm_out = layer.norm_out

    def forward(self, x: Tensor, positions: Tensor, keep: Tensor, valid: Tensor) -> Tensor:
        """x [B, T, D] of whole clips; see `Layer.forward`."""

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            relative = positions, self.bias_u, self.bias_v
            if keep.shape[2] == 1:  # every step sees the whole clip
                return attend_clip(query, key, value, *relative, valid.sum(1))
            query, key, value = (part.transpose(1, 2) for part in (query, key, value))
            return attend_relative(query, key, value, *relative, keep)

        return self.run(x, attend, lambda mixed: self.filter(mixed, valid))

    def local(self, x: Tensor, positions: Tensor, valid: Tensor, window: int) -> Tensor:
        """See `Layer.local`."""

        def attend(*parts: Tensor) -> Tensor:
            projected, *separate = _as_projections([part.transpose(1, 2) for part in parts])
            u, v, global_projection = self.bias_u, self.bias_v, separate[0] if separate else projected
            if places := self.global_steps(x.shape[1]):
                return attend_with_global_steps(projected, global_projection, positions, u, v, valid, window, places)
            return attend_locally(*projected, positions, u, v, valid, window)

        return self.run(x, attend, lambda mixed: self.filter(mixed, valid))

    def run(self, x: Tensor, attend: AttendFunction, filter_steps: FilterFunction) -> Tensor:
        """x [B, T, D] -> [B, T, D] with the given attention and filter."""
        x = x + self.down1(F.silu(self.up1(self.norm_feed_forward1(x))))
        x = x + self.out(attend(*self._by_head(self.project(self.norm_attention(x)))))
        x = x + self.mix2(filter_steps(self.mix1(self.norm_convolution(x))))
        x = x + self.down2(F.silu(self.up2(self.norm_feed_forward2(x))))
        out: Tensor = self.norm_out(x)
        return out

    def positions(self, encoding: Tensor) -> Tensor:
        """Sinusoids [P, D] -> their projection by head [h, P, d]."""
        out: Tensor = self.linear_pos(encoding)
        return out.view(len(encoding), self.heads, self.head_width).transpose(0, 1)

    def _by_head(self, x: Tensor) -> tuple[Tensor, ...]:
        """Output of `project`, [B, T, 3 D] -> queries, keys and values, each a view [B, T, h, d]."""
        return x.view(*x.shape[:2], -1, self.heads, self.head_width).unbind(2)


def _projections(attention: Attention) -> list[nn.Linear]:
    separate = [getattr(attention, f"global_{part}") for part in "qkv"] if attention.global_q is not None else []
    return [attention.linear_q, attention.linear_k, attention.linear_v, *separate]


def _as_projections(parts: list[Tensor]) -> list[Projection]:
    return [Projection(*parts[begin : begin + 3]) for begin in range(0, len(parts), 3)]


def _scaled(linear: nn.Linear, factor: float) -> nn.Linear:
    return _linear(linear.weight * factor, None if linear.bias is None else linear.bias * factor)


def _joined(*linears: nn.Linear) -> nn.Linear:
    """One linear layer for several with the same input."""
    weights: list[Tensor] = [linear.weight for linear in linears]
    biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
    return _linear(torch.cat(weights), torch.cat(biases) if biases else None)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return linear
