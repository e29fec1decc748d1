"""Matrix products as nodes of an ONNX graph: in float32, or in int8 with dynamically quantised activations.

int8: each output column of a weight has its own scale. Activations have one scale and zero point per tensor, or one
scale per row if rows belong to different streams, whose results must not depend on each other. Sums are exact on
processors that accumulate in 32 bits. Others (x86 without VNNI) add pairs in 16 bits, which saturate; there, weights
have 7 bits.
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

ZERO_POINT = 128
"""Zero point of activations, which are unsigned because processors multiply unsigned by signed bytes."""
MIN_MAGNITUDE = 1e-20
"""Lower bound of a row's largest value, for rows of zeros."""


@dataclass(frozen=True)
class Affine:
    """x @ weight.T + bias: a linear layer with folded factors."""

    weight: Tensor
    """[out, in]"""
    bias: Tensor | None = None

    @staticmethod
    def from_linear(layer: nn.Linear) -> Affine:
        return Affine(layer.weight.float(), None if layer.bias is None else layer.bias.float())

    def scaled(self, factor: float) -> Affine:
        return Affine(self.weight * factor, None if self.bias is None else self.bias * factor)

    def with_bias(self, shift: Tensor) -> Affine:
        return replace(self, bias=shift if self.bias is None else self.bias + shift)

    def rows(self, part: slice) -> Affine:
        """A range of the outputs."""
        return Affine(self.weight[part], None if self.bias is None else self.bias[part])

    def quantise(self, levels: int) -> tuple[Tensor, Tensor]:
        """The weight as int8 [out, in], and scales [out]."""
        scales = _scales(self.weight.abs().amax(1), levels)
        return _round(self.weight / scales[:, None], levels), scales


@dataclass(frozen=True)
class Operand:
    """The left side of products, with scale and zero point if it is quantised."""

    value: str
    scale: str = ""
    zero: str = ""


@dataclass(frozen=True)
class Table:
    """A distance table as the right side of products by head, [h, d, P]; scale [1] if it is quantised."""

    value: str
    scale: str = ""


class Products(Protocol):
    """Writes matrix products in some precision."""

    @property
    def levels(self) -> int | None:
        """Largest magnitude of int8 weights; None for float32."""
        ...

    def operand(self, graph: Graph, x: str) -> Operand: ...

    def layer(self, graph: Graph, x: Operand, layer: Affine) -> str:
        """x [..., in] -> [..., out]."""
        ...

    def multiply_table(self, graph: Graph, x: Operand, table: Table) -> str:
        """x [B, h, Q, d] -> [B, h, Q, P]."""
        ...


class Float32:
    levels = None

    def operand(self, graph: Graph, x: str) -> Operand:
        return Operand(x)

    def layer(self, graph: Graph, x: Operand, layer: Affine) -> str:
        y = graph.op("MatMul", x.value, graph.constant(layer.weight.T.numpy()))
        return y if layer.bias is None else graph.op("Add", y, graph.constant(layer.bias.numpy()))

    def multiply_table(self, graph: Graph, x: Operand, table: Table) -> str:
        return graph.op("MatMul", x.value, table.value)


class Int8:
    def __init__(self, reduced: bool) -> None:
        self.levels = REDUCED_LEVELS if reduced else LEVELS

    def operand(self, graph: Graph, x: str) -> Operand:
        return Operand(*graph.ops("DynamicQuantizeLinear", 3, x))

    def layer(self, graph: Graph, x: Operand, layer: Affine) -> str:
        weight, scales = layer.quantise(self.levels)
        bias = "" if layer.bias is None else graph.constant(layer.bias.numpy())
        return self._product(graph, x, graph.constant(weight.T.numpy()), graph.constant(scales.numpy()), bias)

    def multiply_table(self, graph: Graph, x: Operand, table: Table) -> str:
        return self._product(graph, x, table.value, table.scale)

    def _product(self, graph: Graph, x: Operand, right: str, scales: str, bias: str = "") -> str:
        inputs = [x.value, right, x.scale, scales, x.zero] + (["", bias] if bias else [])
        return graph.contrib("MatMulIntegerToFloat", *inputs)


class Int8ByRow(Int8):
    """Quantises each row on its own; inputs must be matrices."""

    def operand(self, graph: Graph, x: str) -> Operand:
        """Scales each row of x [rows, in] by its largest value and rounds to +-127 around the zero point.

        Reducing to the extremes and quantising with scales by row is twice as fast as dividing first.
        """
        maximum, minimum = (graph.op(kind, x, axes=[-1], keepdims=0) for kind in ("ReduceMax", "ReduceMin"))
        largest = graph.op("Max", maximum, graph.op("Neg", minimum), graph.scalar(MIN_MAGNITUDE, np.float32))
        scale = graph.op("Mul", largest, graph.scalar(1 / LEVELS, np.float32))
        zeros = graph.op("Expand", graph.scalar(ZERO_POINT, np.uint8), graph.op("Shape", scale))
        value = graph.op("QuantizeLinear", x, scale, zeros, axis=0)
        return Operand(value, graph.op("Unsqueeze", scale, graph.ints(1)), graph.scalar(ZERO_POINT, np.uint8))

    def _product(self, graph: Graph, x: Operand, right: str, scales: str, bias: str = "") -> str:
        one = graph.scalar(1, np.float32)
        y = graph.op("Mul", graph.contrib("MatMulIntegerToFloat", x.value, right, one, scales, x.zero), x.scale)
        return graph.op("Add", y, bias) if bias else y


def _scales(largest: Tensor, levels: int) -> Tensor:
    return torch.where(largest > 0, largest / levels, 1.0)


def _round(x: Tensor, levels: int) -> Tensor:
    return x.round().clamp(-levels, levels).to(torch.int8)
