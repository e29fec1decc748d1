"""Local attention with global steps within one clip, as nodes of an ONNX graph; see `models/global_attention.py`."""

from __future__ import annotations

import numpy as np

from conure.engine.convert.onnx_attention import LocalAttentionView
from conure.engine.convert.onnx_graph import Graph
from conure.engine.convert.onnx_layers import HeadShape, Projected
from conure.engine.convert.quantize import Products, Table
from conure.models.config import EncoderConfig

__all__ = ["GlobalAttentionView"]


class GlobalAttentionView(LocalAttentionView):
    """Adds global steps as keys of each block: zeros, because their scores are added to the position scores."""

    def __init__(self, graph: Graph, x: str, window: int, config: EncoderConfig) -> None:
        super().__init__(graph, x, window)
        spacing = config.global_spacing
        end = graph.op("Min", self.steps, graph.scalar(config.global_tokens * spacing))
        self.global_steps = graph.op("Range", graph.scalar(0), end, graph.scalar(spacing))
        self.global_count = graph.op("Shape", self.global_steps)
        padding = graph.op("Concat", graph.ints(0, 0, 0, 0, 0), self.global_count, axis=0)
        self.mask = graph.op("Pad", self.spans[0].mask, padding, graph.scalar(1, np.int32))

    def attend(self, products: Products, heads: HeadShape, projected: Projected, table: Table) -> str:
        """-> [1, S, D]"""
        assert projected.global_projections is not None
        graph, width, span = self.graph, heads.count * heads.width, self.spans[0]
        query, position_query = (self.fold_queries(part, width) for part in (projected.query, projected.position_query))
        key, value = (self.by_head(self.fold_keys(part, width), heads) for part in (projected.key, projected.value))
        operand = products.operand(graph, self.by_head(position_query, heads))
        bias = self._distance_scores(products, operand, table, span)
        bias = graph.op("Concat", bias, self._global_scores(heads, *projected.global_projections[:2]), axis=3)
        value = self._append_global_values(heads, value, projected.value)
        mixed = self.attention_node(heads, query, self._append_zero_keys(key), value, self.mask, bias)
        return self._replace_global_steps(
            self.unfold([mixed], width), self._attend_globally(heads, *projected.global_projections)
        )

    def _global_scores(self, heads: HeadShape, query: str, key: str) -> str:
        """Scores of folded queries and global steps, [blocks, h, w, G]."""
        graph = self.graph
        queries = self.by_head(self.fold_queries(query, heads.count * heads.width), heads)
        columns = graph.op("Transpose", self.by_head(self._gather_global(key), heads), perm=[0, 1, 3, 2])
        return graph.op("MatMul", queries, columns)

    def _append_zero_keys(self, key: str) -> str:
        """[blocks, h, 3w, d] -> [blocks, h, 3w + G, d]."""
        padding = self.graph.op(
            "Concat", self.graph.ints(0, 0, 0, 0, 0, 0), self.global_count, self.graph.ints(0), axis=0
        )
        return self.graph.op("Pad", key, padding)

    def _append_global_values(self, heads: HeadShape, value: str, steps: str) -> str:
        """[blocks, h, 3w, d] and [1, S, D] -> [blocks, h, 3w + G, d]."""
        graph = self.graph
        values = self.by_head(self._gather_global(steps), heads)  # [1, h, G, d]
        shape = graph.op("Concat", self.blocks, graph.ints(1, 1, 1), axis=0)
        return graph.op("Concat", value, graph.op("Expand", values, shape), axis=2)

    def _attend_globally(self, heads: HeadShape, query: str, key: str, value: str) -> str:
        """Attention of global steps to the clip, [1, G, D]. Queries [G, h, d] are reshaped to [h, G, d], as in NeMo."""
        graph = self.graph
        queries = graph.op("Reshape", self._gather_global(query), graph.ints(heads.count, -1, heads.width))
        queries = graph.op("Transpose", queries, perm=[1, 0, 2])
        queries = graph.op("Reshape", queries, graph.ints(1, -1, heads.count * heads.width))
        return self.attention_node(heads, queries, self.by_head(key, heads), self.by_head(value, heads))

    def _replace_global_steps(self, mixed: str, attended: str) -> str:
        graph = self.graph
        rows, attended = (graph.op("Squeeze", part, graph.ints(0)) for part in (mixed, attended))
        rows = graph.op("ScatterND", rows, graph.op("Unsqueeze", self.global_steps, graph.ints(1)), attended)
        return graph.op("Unsqueeze", rows, graph.ints(0))

    def _gather_global(self, x: str) -> str:
        """[1, S, D] -> [1, G, D]."""
        return self.graph.op("Gather", x, self.global_steps, axis=1)
