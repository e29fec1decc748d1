"""Local attention with global steps in one clip, as nodes of an ONNX graph; see `models/global_attention.py`."""

from __future__ import annotations

import numpy as np

from conure.engine.convert.onnx_attention import LocalView
from conure.engine.convert.onnx_graph import Graph
from conure.engine.convert.onnx_layers import HeadShape, Projected
from conure.engine.convert.quantize import Products, Table
from conure.models.config import EncoderConfig

__all__ = ["GlobalView"]


class GlobalView(LocalView):
    """Blocks see global steps as more keys: zeros, for their scores come with those of the distances."""

    def __init__(self, graph: Graph, x: str, window: int, config: EncoderConfig) -> None:
        super().__init__(graph, x, window)
        spacing = config.global_spacing
        end = graph.op("Min", self.steps, graph.scalar(config.global_tokens * spacing))
        self.places = graph.op("Range", graph.scalar(0), end, graph.scalar(spacing))
        self.tokens = graph.op("Shape", self.places)
        more = graph.op("Concat", graph.ints(0, 0, 0, 0, 0), self.tokens, axis=0)
        self.keep = graph.op("Pad", self.spans[0].keep, more, graph.scalar(1, np.int32))

    def attend(self, products: Products, heads: HeadShape, projected: Projected, own: Table) -> str:
        """-> [1, S, D]"""
        assert projected.own is not None
        graph, width, span = self.graph, heads.count * heads.width, self.spans[0]
        query, placed = (self.fold_queries(part, width) for part in (projected.query, projected.placed))
        key, value = (self.by_head(self.fold_keys(part, width), heads) for part in (projected.key, projected.value))
        near = products.operand(graph, self.by_head(placed, heads))
        bias = self._distance_scores(products, near, own, span)
        bias = graph.op("Concat", bias, self._scores(heads, *projected.own[:2]), axis=3)
        value = self._with_global(heads, value, projected.value)
        mixed = self.mix(heads, query, self._with_zeros(key), value, self.keep, bias)
        return self._with_seen(self.unfold([mixed], width), self._seen(heads, *projected.own))

    def _scores(self, heads: HeadShape, query: str, key: str) -> str:
        """Of each folded query and global step, [blocks, h, w, G]."""
        graph = self.graph
        asking = self.by_head(self.fold_queries(query, heads.count * heads.width), heads)
        columns = graph.op("Transpose", self.by_head(self._at_places(key), heads), perm=[0, 1, 3, 2])
        return graph.op("MatMul", asking, columns)

    def _with_zeros(self, key: str) -> str:
        """[blocks, h, 3w, d] -> [blocks, h, 3w + G, d]."""
        more = self.graph.op("Concat", self.graph.ints(0, 0, 0, 0, 0, 0), self.tokens, self.graph.ints(0), axis=0)
        return self.graph.op("Pad", key, more)

    def _with_global(self, heads: HeadShape, value: str, steps: str) -> str:
        """[blocks, h, 3w, d] and [1, S, D] -> [blocks, h, 3w + G, d]."""
        graph = self.graph
        given = self.by_head(self._at_places(steps), heads)  # [1, h, G, d]
        shape = graph.op("Concat", self.blocks, graph.ints(1, 1, 1), axis=0)
        return graph.op("Concat", value, graph.op("Expand", given, shape), axis=2)

    def _seen(self, heads: HeadShape, query: str, key: str, value: str) -> str:
        """What global steps see of the clip, [1, G, D]. Queries [G, h, d] are read as [h, G, d], as NeMo has it."""
        graph = self.graph
        asking = graph.op("Reshape", self._at_places(query), graph.ints(heads.count, -1, heads.width))
        asking = graph.op("Transpose", asking, perm=[1, 0, 2])
        asking = graph.op("Reshape", asking, graph.ints(1, -1, heads.count * heads.width))
        return self.mix(heads, asking, self.by_head(key, heads), self.by_head(value, heads))

    def _with_seen(self, mixed: str, seen: str) -> str:
        graph = self.graph
        rows, seen = (graph.op("Squeeze", part, graph.ints(0)) for part in (mixed, seen))
        rows = graph.op("ScatterND", rows, graph.op("Unsqueeze", self.places, graph.ints(1)), seen)
        return graph.op("Unsqueeze", rows, graph.ints(0))

    def _at_places(self, x: str) -> str:
        """[1, S, D] -> [1, G, D]."""
        return self.graph.op("Gather", x, self.places, axis=1)
