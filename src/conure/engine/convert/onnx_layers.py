"""The encoder's layers as nodes of an ONNX graph, for clips and for chunks of streams.

A view implements what differs between the two: attention, and the steps around a chunk that the convolution reads.
Scales, factors of 0.5 and batch norms are folded into adjacent weights; layers with the same input share its
quantisation.
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

__all__ = ["HeadShape", "LayerWriter", "MASKED", "Projected", "View", "convolution2d", "fold_batch_norm"]

MASKED = -1e30
"""The score of a masked key; finite, so that fully masked rows stay finite."""

LayerData_contra = TypeVar("LayerData_contra", contravariant=True)
"""A view's data of a layer."""


@dataclass(frozen=True)
class HeadShape:
    count: int
    width: int


@dataclass(frozen=True)
class Projected:
    """Projections of each step: content queries, position queries, keys, values."""

    query: str
    position_query: str
    key: str
    value: str
    global_projections: tuple[str, str, str] | None = None
    """Queries, keys and values of global attention, if the network has it."""


class View(Protocol[LayerData_contra]):
    """Attention and convolution context of clips or streams. Steps are [..., D], in a layout of the view."""

    def attend(self, products: Products, heads: HeadShape, projected: Projected, data: LayerData_contra) -> str:
        """Attention output of each step."""
        ...

    def with_context(self, x: str, padding: tuple[int, int], data: LayerData_contra) -> tuple[str, tuple[int, int]]:
        """Steps with the known steps around them, [B, T, D], and the remaining zero padding."""
        ...

    def flatten(self, x: str) -> str:
        """[B, S, D] -> steps in the layout of the view."""
        ...


class LayerWriter(Generic[LayerData_contra]):
    def __init__(
        self, graph: Graph, products: Products, view: View[LayerData_contra], *, has_global_steps: bool = False
    ) -> None:
        self.graph, self.products, self.view = graph, products, view
        self.has_global_steps = has_global_steps

    def project_subsampled(self, encoder: Encoder, x: str) -> str:
        """Projects the output of the subsampling's convolutions, [B, S, C], to the first layer's input."""
        out, config = Affine.from_linear(encoder.pre_encode.out), encoder.config
        return self.linear(x, out.scaled(math.sqrt(config.width) if config.scale_input else 1.0))

    def layers(self, encoder: Encoder, x: str, layer_data: Sequence[LayerData_contra]) -> str:
        """All layers, with the view's data of each."""
        for index, (layer, data) in enumerate(zip(cast(list[Layer], list(encoder.layers)), layer_data, strict=True)):
            if index == 0 and "0" in encoder.speaker_kernels:
                kernels = (encoder.speaker_kernels["0"], encoder.background_kernels["0"])
                x = self.apply_speaker_kernels(x, *cast(tuple[SpeakerKernel, SpeakerKernel], kernels))
            x = self.layer(layer, x, data)
        return x

    def layer(self, module: Layer, x: str, data: LayerData_contra) -> str:
        graph = self.graph
        x = graph.op("Add", x, self._feed_forward(module.feed_forward1, self._norm(module.norm_feed_forward1, x)))
        x = graph.op("Add", x, self._attention(module.self_attn, self._norm(module.norm_self_att, x), data))
        x = graph.op("Add", x, self._convolution(module.conv, self._norm(module.norm_conv, x), data))
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
        """The module's output times 0.5, as each of a layer's two has half weight."""
        hidden = self.linear(x, Affine.from_linear(module.linear1))
        return self.linear(self._silu(hidden), Affine.from_linear(module.linear2).scaled(0.5))

    def _attention(self, module: Attention, x: str, data: LayerData_contra) -> str:
        """The scale of the scores is folded into the queries."""
        graph, products, scale = self.graph, self.products, module.head_width**-0.5
        u, v = (bias.float().flatten() * scale for bias in (module.pos_bias_u, module.pos_bias_v))
        operand = products.operand(graph, x)
        query = products.layer(graph, operand, Affine.from_linear(module.linear_q).scaled(scale).with_bias(u))
        position_query = graph.op("Add", query, graph.constant((v - u).numpy()))
        key, value = (
            products.layer(graph, operand, Affine.from_linear(part)) for part in (module.linear_k, module.linear_v)
        )
        heads = HeadShape(module.heads, module.head_width)
        projected = Projected(query, position_query, key, value)
        if self.has_global_steps:
            unbiased = graph.op("Sub", query, graph.constant(u.numpy()))
            projected = replace(
                projected, global_projections=self._global_projections(module, operand, scale) or (unbiased, key, value)
            )
        mixed = self.view.attend(products, heads, projected, data)
        return self.linear(mixed, Affine.from_linear(module.linear_out))

    def _global_projections(self, module: Attention, x: Operand, scale: float) -> tuple[str, str, str] | None:
        """Separate projections of global attention, if the network has them."""
        if module.global_q is None or module.global_k is None or module.global_v is None:
            return None
        layers = (
            Affine.from_linear(module.global_q).scaled(scale),
            Affine.from_linear(module.global_k),
            Affine.from_linear(module.global_v),
        )
        query, key, value = (self.products.layer(self.graph, x, layer) for layer in layers)
        return query, key, value

    def _convolution(self, module: Convolution, x: str, data: LayerData_contra) -> str:
        graph, both = self.graph, Affine.from_linear(module.pointwise_conv1)
        width = both.weight.shape[0] // 2
        operand = self.products.operand(graph, x)
        parts = (both.rows(slice(0, width)), both.rows(slice(width, None)))
        value, gate = (self.products.layer(graph, operand, part) for part in parts)
        x = graph.op("Mul", value, graph.op("Sigmoid", gate))
        x = self._filter(module, x, data)
        return self.linear(self._silu(x), Affine.from_linear(module.pointwise_conv2))

    def _filter(self, module: Convolution, x: str, data: LayerData_contra) -> str:
        """The depthwise convolution over time, as a 2D convolution of height 1, which is fast in ONNX Runtime."""
        graph = self.graph
        weight, bias = fold_batch_norm(module)
        x, (before, after) = self.view.with_context(x, module.padding, data)
        x = graph.op("Transpose", graph.op("Unsqueeze", x, graph.ints(1)), perm=[0, 3, 1, 2])
        filters = (graph.constant(weight[:, :, None].numpy()), graph.constant(bias.numpy()))
        x = graph.op("Conv", x, *filters, group=weight.shape[0], pads=[0, before, 0, after])
        x = self.view.flatten(graph.op("Squeeze", graph.op("Transpose", x, perm=[0, 2, 3, 1]), graph.ints(1)))
        return self._norm(module.batch_norm, x) if isinstance(module.batch_norm, nn.LayerNorm) else x

    def apply_speaker_kernels(self, x: str, speaker: SpeakerKernel, background: SpeakerKernel) -> str:
        """Speaker kernels for a single speaker: the background kernel has zero input, so its output is a constant."""
        graph = self.graph
        hidden = graph.op("Relu", self.linear(x, Affine.from_linear(speaker.linear1)))
        x = graph.op("Add", x, self.linear(hidden, Affine.from_linear(speaker.linear2)))
        zero_input_bias = background.linear1.bias.float()
        added = Affine.from_linear(background.linear2)
        return graph.op("Add", x, graph.constant(F.linear(F.relu(zero_input_bias), added.weight, added.bias).numpy()))

    def apply_prompt(self, module: Prompt, x: str, prompts: str) -> str:
        graph, width = self.graph, module.linear2.out_features
        weight, bias = module.linear1.weight.float(), module.linear1.bias.float()
        table = graph.constant(weight[:, width:].T.numpy())
        prompted = graph.op("Gather", table, prompts)
        hidden = graph.op("Add", self.linear(x, Affine(weight[:, :width], bias)), prompted)
        return self.linear(graph.op("Relu", hidden), Affine.from_linear(module.linear2))


def fold_batch_norm(module: Convolution) -> tuple[Tensor, Tensor]:
    """Weight [D, 1, k] and bias [D] of the depthwise convolution, with the batch norm folded in."""
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
