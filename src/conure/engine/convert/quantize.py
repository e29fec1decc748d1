"""Matrix products as nodes of an ONNX graph: in float32, or in int8 with activations quantised as they come.

int8: each output column of a weight has its own scale. Activations have one scale and zero point for the whole
tensor, found at run time, or one scale for each row where rows are of different clips, which must not know of one
another. Sums of products are exact where the processor multiplies and adds in 32 bits; others (x86 without VNNI)
add pairs in 16 bits, which saturate, and there weights keep 7 bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from conure.engine.convert.onnx_graph import Graph
from conure.engine.convert.saturation import LEVELS, REDUCED_LEVELS

__all__ = ["Affine", "Float32", "Int8", "Int8ByRow", "Operand", "Products", "Table"]

ZERO = 128
"""What stands for 0 in bytes without a sign, which is what the processor multiplies by signed ones."""
SMALLEST = 1e-20
"""A row of zeros is divided by this."""


@dataclass(frozen=True)
class Affine:
    """x @ weight.T + bias: a linear layer with what was folded into it."""

    weight: Tensor
    """[out, in]"""
    bias: Tensor | None = None

    @staticmethod
    def of(layer: nn.Linear) -> Affine:
        return Affine(layer.weight.float(), None if layer.bias is None else layer.bias.float())

    def times(self, factor: float) -> Affine:
        return Affine(self.weight * factor, None if self.bias is None else self.bias * factor)

    def plus(self, shift: Tensor) -> Affine:
        return replace(self, bias=shift if self.bias is None else self.bias + shift)

    def rows(self, part: slice) -> Affine:
        """Some of its outputs."""
        return Affine(self.weight[part], None if self.bias is None else self.bias[part])

    def columns(self, levels: int) -> tuple[Tensor, Tensor]:
        """The weight as bytes [out, in], and the scales [out] of its outputs."""
        scales = scales_of(self.weight.abs().amax(1), levels)
        return round_to(self.weight / scales[:, None], levels), scales


@dataclass(frozen=True)
class Operand:
    """The left side of products; scale and zero point where it is quantised."""

    value: str
    scale: str = ""
    zero: str = ""


@dataclass(frozen=True)
class Table:
    """A right side by head that is not a layer's weight, [h, d, P]; scale [1] where it is quantised."""

    value: str
    scale: str = ""


class Products(Protocol):
    """How matrices are multiplied."""

    @property
    def levels(self) -> int | None:
        """Of the bytes of weights; None in float32."""
        ...

    def operand(self, graph: Graph, x: str) -> Operand: ...

    def layer(self, graph: Graph, x: Operand, layer: Affine) -> str:
        """x [..., in] -> [..., out]."""
        ...

    def with_table(self, graph: Graph, x: Operand, table: Table) -> str:
        """x [B, h, Q, d] -> [B, h, Q, P]."""
        ...


class Float32:
    levels = None

    def operand(self, graph: Graph, x: str) -> Operand:
        return Operand(x)

    def layer(self, graph: Graph, x: Operand, layer: Affine) -> str:
        y = graph.op("MatMul", x.value, graph.constant(layer.weight.T.numpy()))
        return y if layer.bias is None else graph.op("Add", y, graph.constant(layer.bias.numpy()))

    def with_table(self, graph: Graph, x: Operand, table: Table) -> str:
        return graph.op("MatMul", x.value, table.value)


class Int8:
    def __init__(self, reduced: bool) -> None:
        self.levels = REDUCED_LEVELS if reduced else LEVELS

    def operand(self, graph: Graph, x: str) -> Operand:
        return Operand(*graph.ops("DynamicQuantizeLinear", 3, x))

    def layer(self, graph: Graph, x: Operand, layer: Affine) -> str:
        weight, scales = layer.columns(self.levels)
        bias = "" if layer.bias is None else graph.constant(layer.bias.numpy())
        return self._product(graph, x, graph.constant(weight.T.numpy()), graph.constant(scales.numpy()), bias)

    def with_table(self, graph: Graph, x: Operand, table: Table) -> str:
        return self._product(graph, x, table.value, table.scale)

    def _product(self, graph: Graph, x: Operand, right: str, scales: str, bias: str = "") -> str:
        inputs = [x.value, right, x.scale, scales, x.zero] + (["", bias] if bias else [])
        return graph.contrib("MatMulIntegerToFloat", *inputs)


class Int8ByRow(Int8):
    """Of matrices alone."""

    def operand(self, graph: Graph, x: str) -> Operand:
        """Each row of x [rows, in] is divided by its largest value and rounded to +-127 around the zero point.

        Two readings for the extremes and one that rounds with scales by row take half the time of dividing first.
        """
        most, least = (graph.op(kind, x, axes=[-1], keepdims=0) for kind in ("ReduceMax", "ReduceMin"))
        largest = graph.op("Max", most, graph.op("Neg", least), graph.scalar(SMALLEST, np.float32))
        scale = graph.op("Mul", largest, graph.scalar(1 / LEVELS, np.float32))
        zeros = graph.op("Expand", graph.scalar(ZERO, np.uint8), graph.op("Shape", scale))
        value = graph.op("QuantizeLinear", x, scale, zeros, axis=0)
        return Operand(value, graph.op("Unsqueeze", scale, graph.ints(1)), graph.scalar(ZERO, np.uint8))

    def _product(self, graph: Graph, x: Operand, right: str, scales: str, bias: str = "") -> str:
        one = graph.scalar(1, np.float32)
        y = graph.op("Mul", graph.contrib("MatMulIntegerToFloat", x.value, right, one, scales, x.zero), x.scale)
        return graph.op("Add", y, bias) if bias else y


def scales_of(largest: Tensor, levels: int) -> Tensor:
    return torch.where(largest > 0, largest / levels, 1.0)


def round_to(x: Tensor, levels: int) -> Tensor:
    return x.round().clamp(-levels, levels).to(torch.int8)
