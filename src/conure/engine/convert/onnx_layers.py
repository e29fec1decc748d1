"""The encoder's layers as nodes of an ONNX graph, for whole clips and for chunks of streams alike.

A view tells what differs: whom a step's attention sees, and what stands before and after the steps that the
convolution filters. Scales, halves and batch norms are folded into the weights beside them; layers with the same
input share its quantisation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conure.engine.convert.onnx_graph import Graph
from conure.engine.convert.quantize import Affine, Operand, Products
from conure.models.attention import Attention
from conure.models.conformer import Encoder, FeedForward, Layer, SpeakerKernel
from conure.models.convolution import Convolution
from conure.models.network import Prompt

__all__ = ["HeadShape", "LayerWriter", "MASKED", "Projected", "View", "convolution2d", "folded_filter"]

MASKED = -1e30
"""The score of a key that must not be seen; finite, so that a row that sees nothing stays finite."""

Own_contra = TypeVar("Own_contra", contravariant=True)
"""What a view keeps of each layer."""


@dataclass(frozen=True)
class HeadShape:
    count: int
    width: int


@dataclass(frozen=True)
class Projected:
    """Of each step: queries for keys, queries for distances, keys, values."""

    query: str
    placed: str
    key: str
    value: str
    own: tuple[str, str, str] | None = None
    """Queries, keys and values for what global steps see and give, where there are any."""


class View(Protocol[Own_contra]):
    """Steps are [..., D] between its methods, in a form that is the view's own."""

    def attend(self, products: Products, heads: HeadShape, projected: Projected, own: Own_contra) -> str:
        """What each step gets of those that it sees."""
        ...

    def beside(self, x: str, padding: tuple[int, int], own: Own_contra) -> tuple[str, tuple[int, int]]:
        """Steps with what is known of those beside them, [B, T, D], and how much padding is left to do."""
        ...

    def flat(self, x: str) -> str:
        """[B, S, D] to steps."""
        ...


class LayerWriter(Generic[Own_contra]):
    def __init__(
        self, graph: Graph, products: Products, view: View[Own_contra], *, has_global_steps: bool = False
    ) -> None:
        self.graph, self.products, self.view = graph, products, view
        self.has_global_steps = has_global_steps

    def subsampled(self, encoder: Encoder, x: str) -> str:
        """What the subsampling's convolutions give, [B, S, C], to the first layer's input."""
        out, config = Affine.of(encoder.pre_encode.out), encoder.config
        return self.linear(x, out.times(math.sqrt(config.width) if config.scale_input else 1.0))

    def layers(self, encoder: Encoder, x: str, owns: Sequence[Own_contra]) -> str:
        """All layers; `owns` is what the view keeps of each."""
        for index, (layer, own) in enumerate(zip(cast(list[Layer], list(encoder.layers)), owns, strict=True)):
            if index == 0 and "0" in encoder.speaker_kernels:
                kernels = (encoder.speaker_kernels["0"], encoder.background_kernels["0"])
                x = self.hear_one(x, *cast(tuple[SpeakerKernel, SpeakerKernel], kernels))
            x = self.layer(layer, x, own)
        return x

    def layer(self, module: Layer, x: str, own: Own_contra) -> str:
        graph = self.graph
        x = graph.op("Add", x, self._feed_forward(module.feed_forward1, self._norm(module.norm_feed_forward1, x)))
        x = graph.op("Add", x, self._attention(module.self_attn, self._norm(module.norm_self_att, x), own))
        x = graph.op("Add", x, self._convolution(module.conv, self._norm(module.norm_conv, x), own))
        x = graph.op("Add", x, self._feed_forward(module.feed_forward2, self._norm(module.norm_feed_forward2, x)))
        return self._norm(module.norm_out, x)

    def linear(self, x: str, layer: Affine) -> str:
        return self.products.layer(self.graph, self.products.operand(self.graph, x), layer)

    def _norm(self, module: nn.LayerNorm, x: str) -> str:
        weight, bias = (self.graph.constant(part.float().numpy()) for part in (module.weight, module.bias))
        return self.graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=module.eps)

    def _silu(self, x: str) -> str:
        return self.graph.contrib("QuickGelu", x, alpha=1.0)

    def _feed_forward(self, module: FeedForward, x: str) -> str:
        """Half of it, as each of a layer's two counts half."""
        hidden = self.linear(x, Affine.of(module.linear1))
        return self.linear(self._silu(hidden), Affine.of(module.linear2).times(0.5))

    def _attention(self, module: Attention, x: str, own: Own_contra) -> str:
        """The scale of the scores goes into the queries."""
        graph, products, scale = self.graph, self.products, module.head_width**-0.5
        u, v = (bias.float().flatten() * scale for bias in (module.pos_bias_u, module.pos_bias_v))
        shared = products.operand(graph, x)
        query = products.layer(graph, shared, Affine.of(module.linear_q).times(scale).plus(u))
        placed = graph.op("Add", query, graph.constant((v - u).numpy()))
        key, value = (products.layer(graph, shared, Affine.of(part)) for part in (module.linear_k, module.linear_v))
        heads = HeadShape(module.heads, module.head_width)
        projected = Projected(query, placed, key, value)
        if self.has_global_steps:
            plain = graph.op("Sub", query, graph.constant(u.numpy()))
            projected = replace(projected, own=self._own(module, shared, scale) or (plain, key, value))
        mixed = self.view.attend(products, heads, projected, own)
        return self.linear(mixed, Affine.of(module.linear_out))

    def _own(self, module: Attention, x: Operand, scale: float) -> tuple[str, str, str] | None:
        """What global steps have for themselves alone."""
        if module.global_q is None or module.global_k is None or module.global_v is None:
            return None
        layers = Affine.of(module.global_q).times(scale), Affine.of(module.global_k), Affine.of(module.global_v)
        query, key, value = (self.products.layer(self.graph, x, layer) for layer in layers)
        return query, key, value

    def _convolution(self, module: Convolution, x: str, own: Own_contra) -> str:
        graph, both = self.graph, Affine.of(module.pointwise_conv1)
        width = both.weight.shape[0] // 2
        shared = self.products.operand(graph, x)
        parts = (both.rows(slice(0, width)), both.rows(slice(width, None)))
        value, gate = (self.products.layer(graph, shared, part) for part in parts)
        x = graph.op("Mul", value, graph.op("Sigmoid", gate))
        x = self._filter(module, x, own)
        return self.linear(self._silu(x), Affine.of(module.pointwise_conv2))

    def _filter(self, module: Convolution, x: str, own: Own_contra) -> str:
        """The depthwise filter over time, as a convolution over images one line high: ONNX Runtime is fast there."""
        graph = self.graph
        weight, bias = folded_filter(module)
        x, (before, after) = self.view.beside(x, module.padding, own)
        x = graph.op("Transpose", graph.op("Unsqueeze", x, graph.ints(1)), perm=[0, 3, 1, 2])
        filters = (graph.constant(weight[:, :, None].numpy()), graph.constant(bias.numpy()))
        x = graph.op("Conv", x, *filters, group=weight.shape[0], pads=[0, before, 0, after])
        x = self.view.flat(graph.op("Squeeze", graph.op("Transpose", x, perm=[0, 2, 3, 1]), graph.ints(1)))
        return self._norm(module.batch_norm, x) if isinstance(module.batch_norm, nn.LayerNorm) else x

    def hear_one(self, x: str, wanted: SpeakerKernel, others: SpeakerKernel) -> str:
        """One speaker alone: the kernel for others hears silence, and what it adds then is a constant."""
        graph = self.graph
        hidden = graph.op("Relu", self.linear(x, Affine.of(wanted.linear1)))
        x = graph.op("Add", x, self.linear(hidden, Affine.of(wanted.linear2)))
        silence = others.linear1.bias.float()
        added = Affine.of(others.linear2)
        return graph.op("Add", x, graph.constant(F.linear(F.relu(silence), added.weight, added.bias).numpy()))

    def apply_prompt(self, module: Prompt, x: str, slots: str) -> str:
        graph, width = self.graph, module.linear2.out_features
        weight, bias = module.linear1.weight.float(), module.linear1.bias.float()
        table = graph.constant(weight[:, width:].T.numpy())
        told = graph.op("Gather", table, slots)
        hidden = graph.op("Add", self.linear(x, Affine(weight[:, :width], bias)), told)
        return self.linear(graph.op("Relu", hidden), Affine.of(module.linear2))


def folded_filter(module: Convolution) -> tuple[Tensor, Tensor]:
    """The depthwise filter's weight [D, 1, k] and bias [D] with the batch norm in them."""
    filters, norm = module.depthwise_conv, module.batch_norm
    weight = filters.weight.float()
    bias = torch.zeros(weight.shape[0]) if filters.bias is None else filters.bias.float()
    if isinstance(norm, nn.LayerNorm):
        return weight, bias
    statistics = cast(tuple[Tensor, Tensor], (norm.running_mean, norm.running_var))
    mean, variance = (part.float() for part in statistics)
    gain = norm.weight.float() / (variance + norm.eps).sqrt()
    return weight * gain[:, None, None], (bias - mean) * gain + norm.bias.float()


def convolution2d(graph: Graph, x: str, module: nn.Module, **attributes: Any) -> str:
    """A convolution over time and frequency, [B, channels, T, F]."""
    weights = (graph.constant(part.float().numpy()) for part in module.parameters())
    return graph.op("Conv", x, *weights, group=cast(nn.Conv2d, module).groups, **attributes)
