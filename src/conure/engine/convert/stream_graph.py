"""Exports the streaming step of a cache-aware encoder to an ONNX graph.

The graph computes `Encoder.step` and `Network.apply_prompt` after the subsampling, for any number of rows and any
chunk.

The layers' state is never moved. Each layer has pools of steps for all slots: keys and values [R * h * P, D / h] with a
ring of P steps for each slot and head, and the convolution's input [R * Q + 1, D] with rings of Q steps, followed by a
step of zeros. The graph writes the chunk's steps into a pool and gathers steps by index inputs, so that a step touches
only what it needs. A pool is also an output, which must be bound to the memory of its input.

Products quantise each row on its own, so that a stream's result does not depend on the other streams of the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from conure.engine.convert.graph_names import POOLS, UPDATED_PREFIX
from conure.engine.convert.onnx_graph import Graph
from conure.engine.convert.onnx_layers import MASKED, HeadShape, LayerWriter, Projected
from conure.engine.convert.quantize import Products
from conure.models.attention import Attention, sinusoids
from conure.models.config import EncoderConfig
from conure.models.conformer import Layer
from conure.models.network import Network

__all__ = ["write_stream_graph"]

END = 2**62


def write_stream_graph(graph: Graph, network: Network, products: Products) -> None:
    """x [B * C, channels * bands] and the pools -> encoded [B * C, D] and the updated pools.

    With K = L + C keys per row: `seen` [B, K] is the mask of visible keys; `kept` [B, h, K] and `filtered`
    [B, C + kernel - 1] are indices of steps in the pools, `to_keep` [B * C * h, 1] and `to_filter` [B * C, 1] indices
    of new steps. `prompts` [B * C] are language prompts.
    """
    encoder, config = network.encoder, network.config.encoder
    x = graph.input("x", np.float32, ["S", encoder.pre_encode.out.in_features])
    layers = cast(list[Layer], list(encoder.layers))
    caches = [_cache(graph, index, layer.self_attn, config) for index, layer in enumerate(layers)]
    writer = LayerWriter(graph, products, StreamView(graph, config))
    x = writer.layers(encoder, writer.project_subsampled(encoder, x), caches)
    if network.prompt is not None:
        x = writer.apply_prompt(network.prompt, x, graph.input("prompts", np.int64, ["S"]))
    graph.output("encoded", x, np.float32, ["S", config.width])


@dataclass(frozen=True)
class LayerCache:
    """Names of a layer's pools, and its projected distances [h, D / h, L + 2 * max_chunk]."""

    keys: str
    values: str
    filtered: str
    table: str


def _cache(graph: Graph, index: int, module: Attention, config: EncoderConfig) -> LayerCache:
    widths = (module.head_width, module.head_width, config.width)
    keys, values, filtered = (
        graph.input(f"{name}.{index}", np.float32, [f"{name} steps", width])
        for name, width in zip(POOLS, widths, strict=True)
    )
    weight, chunk = module.linear_pos.weight.float(), config.max_chunk
    encoding = sinusoids(config.max_past + chunk, 1 - chunk, config.width, weight)
    table = (weight @ encoding.T).reshape(module.heads, module.head_width, -1)
    return LayerCache(keys, values, filtered, graph.constant(table.numpy()))


class StreamView:
    """Attention and convolution over a chunk and the state of its slot. Steps are [B * C, D]."""

    def __init__(self, graph: Graph, config: EncoderConfig) -> None:
        self.graph, self.width = graph, config.width
        self.seen = graph.input("seen", np.int32, ["B", "K"])
        self.kept = graph.input("kept", np.int64, ["B", config.heads, "K"])
        self.to_keep = graph.input("to_keep", np.int64, ["S * h", 1])
        self.filtered = graph.input("filtered", np.int64, ["B", "N"])
        self.to_filter = graph.input("to_filter", np.int64, ["S", 1])
        rows, self.keys = (graph.op("Shape", self.seen, start=axis, end=axis + 1) for axis in (0, 1))
        self.chunk = graph.op("Sub", self.keys, graph.ints(config.max_past))
        self.first = graph.op("Sub", graph.ints(config.max_chunk), self.chunk)
        self.last = graph.op("Add", graph.op("Add", self.first, self.keys), self.chunk)
        self.by_row = graph.op("Concat", rows, graph.ints(-1, config.width), axis=0)
        self.by_head = graph.op("Concat", rows, graph.ints(-1, config.heads, config.width // config.heads), axis=0)
        self.by_query = graph.op("Concat", graph.ints(0, 0), self.chunk, graph.ints(-1), axis=0)

    def attend(self, products: Products, heads: HeadShape, projected: Projected, cache: LayerCache) -> str:
        """Position scores are computed in float32."""
        graph, shape = self.graph, self.graph.ints(-1, heads.width)
        key, value = (graph.op("Reshape", part, shape) for part in (projected.key, projected.value))
        keys = self._update_and_gather(cache.keys, key, self.to_keep, self.kept)
        values = self._update_and_gather(cache.values, value, self.to_keep, self.kept)
        query = graph.op("Reshape", projected.query, self.by_row)
        bias = self._distance_scores(graph.op("Reshape", projected.position_query, self.by_head), cache.table)
        options = {"num_heads": heads.count, "scale": 1.0, "mask_filter_value": MASKED}
        mixed = graph.contrib("MultiHeadAttention", query, keys, values, "", self.seen, bias, **options)
        return self.flatten(mixed)

    def with_context(self, x: str, padding: tuple[int, int], cache: LayerCache) -> tuple[str, tuple[int, int]]:
        """The steps before the chunk replace the padding."""
        return self._update_and_gather(cache.filtered, x, self.to_filter, self.filtered), (0, 0)

    def flatten(self, x: str) -> str:
        return self.graph.op("Reshape", x, self.graph.ints(-1, self.width))

    def _update_and_gather(self, pool: str, x: str, write_indices: str, read_indices: str) -> str:
        """Writes new steps into a pool and gathers the visible ones."""
        after = self.graph.update(
            UPDATED_PREFIX + pool, np.float32, ["steps", "width"], "ScatterND", pool, write_indices, x
        )
        return self.graph.op("Gather", after, read_indices, axis=0)

    def _distance_scores(self, position_query: str, table: str) -> str:
        """position_query [B, C, h, d] -> position scores of each query and key, [B, h, C, K].

        Column c of a query's scores is distance L + C - c; key j of query i is in column C - i + j. Dropping the first
        C of the flattened scores and reading rows that are one shorter aligns the keys.
        """
        graph, two = self.graph, self.graph.ints(2)
        table = graph.op("Slice", table, self.first, self.last, two)
        scores = graph.op("MatMul", graph.op("Transpose", position_query, perm=[0, 2, 1, 3]), table)
        flat = graph.op("Slice", graph.op("Reshape", scores, graph.ints(0, 0, -1)), self.chunk, graph.ints(END), two)
        return graph.op("Slice", graph.op("Reshape", flat, self.by_query), graph.ints(0), self.keys, graph.ints(3))
