"""One chunk of cache-aware streams as an ONNX graph, written from the network's modules.

The graph computes what `Encoder.step` and `Network.prompted` do after the subsampling, for any number of rows and
chunks of any size.

What the layers remember is never moved. Each layer has pools of steps that all streams share: keys and values
[R * h * P, D / h], where every row and head has a ring of P steps, and the convolution's input [R * Q + 1, D] with
rings of Q steps and, last of all, a step of silence. The graph writes the chunk's steps into a pool and reads of it
the rows and steps it is told: a turn touches what it needs and nothing else. A pool comes back as an output, which
must be bound to the memory of its input.

Products treat each row on its own, so that a stream's numbers do not depend on who else is in the turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from conure.engine.convert.graph_names import AFTER, POOLS
from conure.engine.convert.onnx_graph import Graph
from conure.engine.convert.onnx_layers import MASKED, HeadShape, LayerWriter, Projected
from conure.engine.convert.quantize import Products
from conure.models.attention import Attention, sinusoids
from conure.models.config import EncoderConfig
from conure.models.conformer import Layer
from conure.models.network import Network

__all__ = ["write_step"]

END = 2**62


def write_step(graph: Graph, network: Network, products: Products) -> None:
    """x [B * C, channels * bands] and the pools -> encoded [B * C, D] and the pools after it.

    With K = L + C steps that a row sees: `seen` [B, K] tells which of them are real; `kept` [B, h, K] and `filtered`
    [B, C + kernel - 1] are where they are in pools, `to_keep` [B * C * h, 1] and `to_filter` [B * C, 1] where new
    ones go. `prompts` [B * C] are language slots.
    """
    encoder, config = network.encoder, network.config.encoder
    x = graph.input("x", np.float32, ["S", encoder.pre_encode.out.in_features])
    layers = cast(list[Layer], list(encoder.layers))
    caches = [_cache(graph, index, layer.self_attn, config) for index, layer in enumerate(layers)]
    writer = LayerWriter(graph, products, StreamView(graph, config))
    x = writer.layers(encoder, writer.subsampled(encoder, x), caches)
    if network.prompt is not None:
        x = writer.apply_prompt(network.prompt, x, graph.input("prompts", np.int64, ["S"]))
    graph.output("encoded", x, np.float32, ["S", config.width])


@dataclass(frozen=True)
class LayerCache:
    """Names of a layer's pools, and its projections of distances [h, D / h, L + 2 * longest chunk]."""

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
    """A chunk sees itself and what its row remembers. Steps are [B * C, D]."""

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

    def attend(self, products: Products, heads: HeadShape, projected: Projected, own: LayerCache) -> str:
        """Scores stay in float32."""
        graph, shape = self.graph, self.graph.ints(-1, heads.width)
        key, value = (graph.op("Reshape", part, shape) for part in (projected.key, projected.value))
        keys = self._remember(own.keys, key, self.to_keep, self.kept)
        values = self._remember(own.values, value, self.to_keep, self.kept)
        query = graph.op("Reshape", projected.query, self.by_row)
        bias = self._distance_scores(graph.op("Reshape", projected.placed, self.by_head), own.table)
        options = {"num_heads": heads.count, "scale": 1.0, "mask_filter_value": MASKED}
        mixed = graph.contrib("MultiHeadAttention", query, keys, values, "", self.seen, bias, **options)
        return self.flat(mixed)

    def beside(self, x: str, padding: tuple[int, int], own: LayerCache) -> tuple[str, tuple[int, int]]:
        """The steps before the chunk take the place of the padding."""
        return self._remember(own.filtered, x, self.to_filter, self.filtered), (0, 0)

    def flat(self, x: str) -> str:
        return self.graph.op("Reshape", x, self.graph.ints(-1, self.width))

    def _remember(self, pool: str, x: str, to: str, seen: str) -> str:
        """Writes new steps into a pool and reads what is seen of it."""
        after = self.graph.update(AFTER + pool, np.float32, ["steps", "width"], "ScatterND", pool, to, x)
        return self.graph.op("Gather", after, seen, axis=0)

    def _distance_scores(self, placed: str, table: str) -> str:
        """placed [B, C, h, d] -> scores of each query and key by their distance, [B, h, C, K].

        Column c of a query's scores is of distance L + C - c; key j of query i is in column C - i + j. Dropping the
        first C scores of all and reading rows one shorter lines the keys up.
        """
        graph, two = self.graph, self.graph.ints(2)
        table = graph.op("Slice", table, self.first, self.last, two)
        scores = graph.op("MatMul", graph.op("Transpose", placed, perm=[0, 2, 1, 3]), table)
        flat = graph.op("Slice", graph.op("Reshape", scores, graph.ints(0, 0, -1)), self.chunk, graph.ints(END), two)
        return graph.op("Slice", graph.op("Reshape", flat, self.by_query), graph.ints(0), self.keys, graph.ints(3))
