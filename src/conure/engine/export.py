"""A network's encoder as ONNX graphs for whole clips, written from its modules.

Two graphs compute what `Network.encode` does, for one clip. The front takes mel [1, T, F] of a piece of the clip
to what the subsampling projects, [1, S, C]. The encoder takes that for all of the clip and, where the model has a
language prompt, its slot [1]; it gives encoded [1, S, D]. Tests hold the two forms equal.

One clip needs no masks, no step is computed in vain, and its numbers depend on nothing beside it. Clips of some
seconds keep a CPU as busy as batches of them do.

What changes in form: scales, halves and batch norms are folded into the weights beside them; layers with the
same input share its quantisation; attention is one fused node per span of queries; each layer's projections of
distances are a table, which depends on the weights alone. It reaches 40 s; for longer clips others are given.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conure.engine.onnx_attention import Heads, LocalView, Projected, View, WholeView
from conure.engine.onnx_graph import Graph, save_graph
from conure.engine.quantize import Affine, Products, Table
from conure.models.attention import Attention, sinusoids
from conure.models.config import AttentionContext
from conure.models.conformer import FeedForward, Layer, SpeakerKernel
from conure.models.convolution import Convolution
from conure.models.network import Network, Prompt
from conure.models.subsampling import Subsampling

__all__ = ["ENCODER_FILE", "EXPORT_VERSION", "FRONT_FILE", "REACH", "export_network", "position_tables"]

FRONT_FILE, ENCODER_FILE = "front.onnx", "encoder.onnx"

EXPORT_VERSION = 5
"""Raise it when the graphs change: what was converted before is converted again."""

REACH = 512
"""Distances that the tables in the graph reach, in steps."""


@torch.inference_mode()
def export_network(network: Network, folder: Path, products: Products, context: AttentionContext | None = None) -> None:
    """Writes both graphs and their weights into `folder`. The front stays in float32: it is small and sensitive."""
    context = context or network.config.encoder.contexts[0]
    save_graph(folder / FRONT_FILE, lambda graph: _front(graph, network.encoder.pre_encode))
    save_graph(folder / ENCODER_FILE, lambda graph: _encoder(graph, network, products, context))


def _front(graph: Graph, module: Subsampling) -> None:
    x = graph.op("Unsqueeze", graph.input("mel", np.float32, [1, "T", "F"]), graph.ints(1))
    lead = 2 if module.causal else 1
    for stride, mix in ((0, None), (2, 3), (5, 6)):
        x = _convolution2d(graph, x, module.conv[stride], strides=[2, 2], pads=[lead, lead, 1, 1])
        if mix is not None:
            x = _convolution2d(graph, x, module.conv[mix])
        x = graph.op("Relu", x)
    x = graph.op("Reshape", graph.op("Transpose", x, perm=[0, 2, 1, 3]), graph.ints(0, 0, -1))
    graph.output("x", x, np.float32, [1, "S", module.out.in_features])


def _convolution2d(graph: Graph, x: str, module: nn.Module, **attributes: Any) -> str:
    weights = (graph.constant(part.float().numpy()) for part in module.parameters())
    return graph.op("Conv", x, *weights, group=cast(nn.Conv2d, module).groups, **attributes)


def _encoder(graph: Graph, network: Network, products: Products, context: AttentionContext) -> None:
    encoder, config = network.encoder, network.config.encoder
    x = graph.input("x", np.float32, [1, "S", encoder.pre_encode.out.in_features])
    layers, reach = cast(list[Layer], list(encoder.layers)), 2 * context.left if config.local else REACH
    tables = [_table(graph, index, layer.self_attn, products, reach) for index, layer in enumerate(layers)]
    if config.local:
        view: View = LocalView(graph, x, context.left)
    else:
        view = WholeView(graph, x, tables[0].value, config, context)
    writer = _LayerWriter(graph, products, view)
    out = Affine.of(encoder.pre_encode.out).times(math.sqrt(config.width) if config.scale_input else 1.0)
    x = writer.linear(x, out)
    for index, (layer, table) in enumerate(zip(layers, tables, strict=True)):
        if index == 0 and "0" in encoder.speaker_kernels:
            kernels = (encoder.speaker_kernels["0"], encoder.background_kernels["0"])
            x = writer.hear_one(x, *cast(tuple[SpeakerKernel, SpeakerKernel], kernels))
        x = writer.layer(layer, x, table)
    if network.prompt is not None:
        x = writer.prompted(network.prompt, x, graph.input("prompts", np.int64, [1]))
    graph.output("encoded", x, np.float32, [1, "S", config.width])


def _table(graph: Graph, index: int, module: Attention, products: Products, reach: int) -> Table:
    kept = position_tables(products, module.linear_pos.weight, module.heads, reach)
    names = []
    for name, array in kept.items():
        shape: list[str | int] = [*array.shape[:2], "P"] if array.ndim == 3 else [1]
        names.append(graph.input(f"{name}.{index}", array.dtype.type, shape, default=array))
    return Table(*names)


@torch.inference_mode()
def position_tables(products: Products, weight: Tensor, heads: int, reach: int) -> dict[str, np.ndarray]:
    """A layer's projections of the distances reach, reach - 1, ..., 1 - reach by head: [h, D / h, 2 * reach].

    No score reads the first column; it makes the shift from distances to keys a matter of shapes. The scale
    is that of the distances within REACH, so that a longer table does not change what the shorter one gave.
    """
    weight = weight.float()
    table = weight @ sinusoids(reach, 1 - reach, weight.shape[0], weight).T
    near = slice(max(reach - REACH, 0), reach + REACH)
    return products.tables(table.reshape(heads, -1, 2 * reach), near)


class _LayerWriter:
    def __init__(self, graph: Graph, products: Products, view: View) -> None:
        self.graph, self.products, self.view = graph, products, view

    def layer(self, module: Layer, x: str, table: Table) -> str:
        graph = self.graph
        x = graph.op("Add", x, self._feed_forward(module.feed_forward1, self._norm(module.norm_feed_forward1, x)))
        x = graph.op("Add", x, self._attention(module.self_attn, self._norm(module.norm_self_att, x), table))
        x = graph.op("Add", x, self._convolution(module.conv, self._norm(module.norm_conv, x)))
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

    def _attention(self, module: Attention, x: str, table: Table) -> str:
        """The scale of the scores goes into the queries."""
        graph, products, scale = self.graph, self.products, module.head_width**-0.5
        u, v = (bias.float().flatten() * scale for bias in (module.pos_bias_u, module.pos_bias_v))
        shared = products.operand(graph, x)
        query = products.layer(graph, shared, Affine.of(module.linear_q).times(scale).plus(u))
        placed = graph.op("Add", query, graph.constant((v - u).numpy()))
        key, value = (products.layer(graph, shared, Affine.of(part)) for part in (module.linear_k, module.linear_v))
        heads = Heads(module.heads, module.head_width)
        mixed = self.view.attend(products, heads, Projected(query, placed, key, value), table)
        return self.linear(mixed, Affine.of(module.linear_out))

    def _convolution(self, module: Convolution, x: str) -> str:
        graph, both = self.graph, Affine.of(module.pointwise_conv1)
        width = both.weight.shape[0] // 2
        shared = self.products.operand(graph, x)
        parts = (both.rows(slice(0, width)), both.rows(slice(width, None)))
        value, gate = (self.products.layer(graph, shared, part) for part in parts)
        x = graph.op("Mul", value, graph.op("Sigmoid", gate))
        x = self._filter(module, x)
        return self.linear(self._silu(x), Affine.of(module.pointwise_conv2))

    def _filter(self, module: Convolution, x: str) -> str:
        """The depthwise filter over time, as a convolution over images one line high: ONNX Runtime is fast there."""
        graph = self.graph
        weight, bias = _folded(module)
        x = graph.op("Transpose", graph.op("Unsqueeze", x, graph.ints(1)), perm=[0, 3, 1, 2])
        before, after = module.padding
        filters = (graph.constant(weight[:, :, None].numpy()), graph.constant(bias.numpy()))
        x = graph.op("Conv", x, *filters, group=weight.shape[0], pads=[0, before, 0, after])
        x = graph.op("Squeeze", graph.op("Transpose", x, perm=[0, 2, 3, 1]), graph.ints(1))
        return self._norm(module.batch_norm, x) if isinstance(module.batch_norm, nn.LayerNorm) else x

    def hear_one(self, x: str, wanted: SpeakerKernel, others: SpeakerKernel) -> str:
        """One speaker alone: the kernel for others hears silence, and what it adds then is a constant."""
        graph = self.graph
        hidden = graph.op("Relu", self.linear(x, Affine.of(wanted.linear1)))
        x = graph.op("Add", x, self.linear(hidden, Affine.of(wanted.linear2)))
        silence = others.linear1.bias.float()
        added = Affine.of(others.linear2)
        return graph.op("Add", x, graph.constant(F.linear(F.relu(silence), added.weight, added.bias).numpy()))

    def prompted(self, module: Prompt, x: str, slots: str) -> str:
        graph, width = self.graph, module.linear2.out_features
        weight, bias = module.linear1.weight.float(), module.linear1.bias.float()
        table = graph.constant(weight[:, width:].T.numpy())
        told = graph.op("Unsqueeze", graph.op("Gather", table, slots), graph.ints(1))
        hidden = graph.op("Add", self.linear(x, Affine(weight[:, :width], bias)), told)
        return self.linear(graph.op("Relu", hidden), Affine.of(module.linear2))


def _folded(module: Convolution) -> tuple[Tensor, Tensor]:
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
