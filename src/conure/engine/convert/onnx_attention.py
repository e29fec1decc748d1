"""Attention within one clip as nodes of an ONNX graph: the layout of queries and keys, and masks.

Full attention processes a clip in a few spans of queries: the scores of a span stay in the CPU's cache, and fewer
unused distances are scored. Local attention folds its windows into the batch axis, as in `Attention.local`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from conure.engine.convert.graph_names import CONTEXT_INPUT, context_values
from conure.engine.convert.onnx_graph import Graph
from conure.engine.convert.onnx_layers import MASKED, HeadShape, Projected
from conure.engine.convert.quantize import Operand, Products, Table
from conure.models.config import AttentionContext, EncoderConfig

__all__ = ["ClipView", "FullAttentionView", "LocalAttentionView"]

QUERY_SPANS = 3
"""Number of query spans."""

END = 2**62


@dataclass(frozen=True)
class QuerySpan:
    """Queries `begin` to `end` and their indices, as int64 vectors of one element unless noted otherwise."""

    begin: str
    end: str
    queries: str
    keys: str
    rows: str
    """The shape [0, 0, queries, -1] that aligns keys by a reshape."""
    first: str
    """First column of the distance table that the span reads."""
    last: str
    mask: str
    """Mask of visible keys, 1 or 0 in int32, [B, Q, K]; empty if all keys are visible."""


class ClipView:
    """Base of the views of a clip, shared by all layers. B is 1, or the number of blocks of a clip."""

    spans: tuple[QuerySpan, ...]

    def __init__(self, graph: Graph, x: str) -> None:
        self.graph = graph
        self.steps = graph.size(x, 1)

    def fold_queries(self, x: str, width: int) -> str:
        return x

    def fold_keys(self, x: str, width: int) -> str:
        return x

    def unfold(self, parts: list[str], width: int) -> str:
        raise NotImplementedError

    def with_context(self, x: str, padding: tuple[int, int], table: Table) -> tuple[str, tuple[int, int]]:
        """A clip has no steps around it."""
        return x, padding

    def flatten(self, x: str) -> str:
        return x

    def attend(self, products: Products, heads: HeadShape, projected: Projected, table: Table) -> str:
        """-> [1, S, D]"""
        graph, width = self.graph, heads.count * heads.width
        query, position_query = (self.fold_queries(part, width) for part in (projected.query, projected.position_query))
        key, value = (self.by_head(self.fold_keys(part, width), heads) for part in (projected.key, projected.value))
        position_operand = products.operand(graph, self.by_head(position_query, heads))
        mixed = []
        for span in self.spans:
            bias = self._distance_scores(products, position_operand, table, span)
            part = graph.op("Slice", query, span.begin, span.end, graph.ints(1))
            mixed.append(self.attention_node(heads, part, key, value, span.mask, bias))
        return self.unfold(mixed, width)

    def attention_node(self, heads: HeadShape, query: str, key: str, value: str, mask: str = "", bias: str = "") -> str:
        """Queries [B, Q, D], keys and values [B, h, K, d] -> [B, Q, D]."""
        options = {"num_heads": heads.count, "scale": 1.0, "mask_filter_value": MASKED}
        return self.graph.contrib("MultiHeadAttention", query, key, value, "", mask, bias, **options)

    def _distance_scores(self, products: Products, position_operand: Operand, table: Table, span: QuerySpan) -> str:
        """Position scores of each query and key, [B, h, Q, K].

        Column c of a query's scores is the c-th largest distance; key j of query i is in column Q - i + j. Dropping the
        first Q of the flattened scores and reading rows that are one shorter aligns the keys.
        """
        graph = self.graph
        part = replace(
            position_operand, value=graph.op("Slice", position_operand.value, span.begin, span.end, graph.ints(2))
        )
        distances = replace(table, value=graph.op("Slice", table.value, span.first, span.last, graph.ints(2)))
        scores = products.multiply_table(graph, part, distances)
        flat = graph.op("Reshape", scores, graph.ints(0, 0, -1))
        flat = graph.op("Slice", flat, span.queries, graph.ints(END), graph.ints(2))
        return graph.op("Slice", graph.op("Reshape", flat, span.rows), graph.ints(0), span.keys, graph.ints(3))

    def by_head(self, x: str, heads: HeadShape) -> str:
        """[B, S, D] -> [B, h, S, d]."""
        shape = self.graph.ints(0, 0, heads.count, heads.width)
        return self.graph.op("Transpose", self.graph.op("Reshape", x, shape), perm=[0, 2, 1, 3])


class FullAttentionView(ClipView):
    """Attention over the whole clip, masked by the context."""

    def __init__(self, graph: Graph, x: str, table: str, config: EncoderConfig, context: AttentionContext) -> None:
        super().__init__(graph, x)
        reach = graph.op("Div", graph.size(table, 2), graph.scalar(2))
        visible = _visible(graph, self.steps, config, context)
        size = graph.op("Div", graph.op("Add", self.steps, graph.scalar(QUERY_SPANS - 1)), graph.scalar(QUERY_SPANS))
        last = graph.op("Sub", self.steps, graph.scalar(1))
        begins = [graph.op("Min", graph.op("Mul", size, graph.scalar(index)), last) for index in range(QUERY_SPANS)]
        ends = [graph.op("Min", graph.op("Add", begin, size), self.steps) for begin in begins]
        self.spans = tuple(self._span(reach, visible, *span) for span in zip(begins, ends, strict=True))

    def unfold(self, parts: list[str], width: int) -> str:
        """Joins the spans. In very short clips the last spans repeat steps, which are dropped here."""
        end = self.graph.op("Unsqueeze", self.steps, self.graph.ints(0))
        whole = self.graph.op("Concat", *parts, axis=1)
        return self.graph.op("Slice", whole, self.graph.ints(0), end, self.graph.ints(1))

    def _span(self, reach: str, visible: str | None, begin: str, end: str) -> QuerySpan:
        """Column c of a table is distance reach - c; the first column of the span is distance `end`."""
        graph = self.graph
        first = graph.op("Sub", reach, end)
        last = graph.op("Add", graph.op("Sub", reach, begin), self.steps)
        vectors = (begin, end, graph.op("Sub", end, begin), self.steps, first, last)
        begin, end, queries, keys, first, last = (graph.op("Unsqueeze", size, graph.ints(0)) for size in vectors)
        mask = ""
        if visible is not None:
            rows = graph.op("Slice", visible, begin, end, graph.ints(0))
            mask = graph.op("Unsqueeze", graph.op("Cast", rows, to=graph.element(np.int32)), graph.ints(0))
        return QuerySpan(begin, end, queries, keys, _rows(graph, queries), first, last, mask)


class LocalAttentionView(ClipView):
    """Local attention with `window` steps to either side. Each row is a block of `window` steps with both
    neighbours."""

    def __init__(self, graph: Graph, x: str, window: int) -> None:
        super().__init__(graph, x)
        self.window = window
        blocks = graph.op("Div", graph.op("Add", self.steps, graph.scalar(window - 1)), graph.scalar(window))
        self.blocks = graph.op("Unsqueeze", blocks, graph.ints(0))
        self.padded_steps = graph.op("Mul", self.blocks, graph.ints(window))
        size, keys, columns = (graph.ints(times * window) for times in (1, 3, 4))
        rows = _rows(graph, size)
        self.spans = (QuerySpan(graph.ints(0), size, size, keys, rows, graph.ints(0), columns, self._band_mask()),)

    def fold_queries(self, x: str, width: int) -> str:
        """[1, S, D] -> [blocks, w, D], zero-padded."""
        return self.graph.op("Reshape", self._pad(x, 0), self.graph.ints(-1, self.window, width))

    def fold_keys(self, x: str, width: int) -> str:
        """[1, S, D] -> [blocks, 3w, D]: each block between its neighbours."""
        graph = self.graph
        count = graph.op("Add", self.blocks, graph.ints(2))
        shape = graph.op("Concat", graph.ints(0), count, graph.ints(self.window, width), axis=0)
        blocks = graph.op("Reshape", self._pad(x, self.window), shape)
        edges = ((0, -2), (1, -1), (2, END))
        position_operand = [
            graph.op("Slice", blocks, graph.ints(begin), graph.ints(end), graph.ints(1)) for begin, end in edges
        ]
        return graph.op(
            "Reshape", graph.op("Concat", *position_operand, axis=2), graph.ints(-1, 3 * self.window, width)
        )

    def unfold(self, parts: list[str], width: int) -> str:
        """[blocks, w, D] -> [1, S, D]."""
        graph = self.graph
        shape = graph.op("Concat", graph.ints(-1), self.padded_steps, graph.ints(width), axis=0)
        end = graph.op("Unsqueeze", self.steps, graph.ints(0))
        return graph.op("Slice", graph.op("Reshape", parts[0], shape), graph.ints(0), end, graph.ints(1))

    def _pad(self, x: str, sides: int) -> str:
        """Pads x [1, S, D] with zeros to a multiple of the block, and with `sides` more steps before and after."""
        graph = self.graph
        fill = graph.op("Add", graph.op("Sub", self.padded_steps, self.steps), graph.ints(sides))
        return graph.op("Pad", x, graph.op("Concat", graph.ints(0, sides, 0, 0), fill, graph.ints(0), axis=0))

    def _band_mask(self) -> str:
        """[blocks, w, 3w]."""
        graph = self.graph
        shape = graph.op(
            "Concat", graph.ints(1), graph.op("Unsqueeze", self.steps, graph.ints(0)), graph.ints(1), axis=0
        )
        real = graph.op("Expand", graph.scalar(1, np.int32), shape)
        position_operand = graph.op("Transpose", self.fold_keys(real, 1), perm=[0, 2, 1])
        row, column = np.arange(self.window)[:, None], np.arange(3 * self.window)[None]
        band = np.abs(row + self.window - column) <= self.window
        return graph.op("Mul", position_operand, graph.constant(band.astype(np.int32)))


def _rows(graph: Graph, queries: str) -> str:
    return graph.op("Concat", graph.ints(0, 0), queries, graph.ints(-1), axis=0)


def _visible(graph: Graph, steps: str, config: EncoderConfig, context: AttentionContext) -> str | None:
    """Visibility of steps (columns) to steps (rows), bool [S, S]; None if all are visible. Like `Encoder._visible`."""
    column = graph.range(steps)
    row = graph.op("Unsqueeze", column, graph.ints(1))
    left, right = (None if side < 0 else side for side in (context.left, context.right))
    if config.style == "chunked_limited" and right is not None:
        chunk = graph.scalar(right + 1)
        behind = graph.op("Sub", graph.op("Div", row, chunk), graph.op("Div", column, chunk))
        return _between(graph, behind, 0, None if left is None else left // (right + 1))
    if config.style == "chunked_limited_with_rc":
        context_input = graph.input(CONTEXT_INPUT, np.int64, [3], default=context_values(context))
        chunk, left_end, right_end = (graph.op("Gather", context_input, graph.scalar(index)) for index in range(3))
        ahead = graph.op("Sub", column, graph.op("Mul", graph.op("Div", row, chunk), chunk))
        behind_end = graph.op("GreaterOrEqual", ahead, graph.op("Neg", left_end))
        return graph.op("And", behind_end, graph.op("Less", ahead, graph.op("Add", chunk, right_end)))
    return _between(graph, graph.op("Sub", row, column), _negative(right), left)


def _negative(value: int | None) -> int | None:
    return None if value is None else -value


def _between(graph: Graph, x: str, low: int | None, high: int | None) -> str | None:
    tests = [] if low is None else [graph.op("GreaterOrEqual", x, graph.scalar(low))]
    if high is not None:
        tests.append(graph.op("LessOrEqual", x, graph.scalar(high)))
    return None if not tests else tests[0] if len(tests) == 1 else graph.op("And", *tests)
