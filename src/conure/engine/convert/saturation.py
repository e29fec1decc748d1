"""Whether sums of products of bytes are exact on this processor.

They are where it multiplies bytes and adds in 32 bits: x86 with VNNI, ARM. Other x86 (AVX2, AVX-512 alone) add pairs of
products in 16 bits, which saturate; weights keep 7 bits there, and int8 is about half as exact.
"""

from __future__ import annotations

import functools
import io

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

from conure.native.library import has_native_kernels

__all__ = ["LEVELS", "REDUCED_LEVELS", "adds_in_16_bits", "probe", "saturates"]

LEVELS, REDUCED_LEVELS = 127, 63
"""Of a weight's bytes, and where sums of full ones saturate."""


@functools.cache
def adds_in_16_bits() -> bool:
    """Whether this processor does; those that native kernels run on do not, and are not tried."""
    return not has_native_kernels() and saturates(probe())


def saturates(graph: bytes) -> bool:
    """Whether sums of products of full bytes are wrong on this processor; `graph` is what `probe` gives."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    a, b = np.full((16, 64), 255, np.uint8), np.full((64, 64), LEVELS, np.int8)
    return bool((session.run(None, {"a": a, "b": b})[0] != 64 * 255 * LEVELS).any())


def probe() -> bytes:
    """A graph that multiplies the largest bytes there are: what it gives tells how this processor adds."""
    from conure.engine.convert.onnx_graph import Graph, Weights  # noqa: PLC0415  what runs converted networks writes no graphs

    graph = Graph(Weights(io.BytesIO(), ""))
    a, b = graph.input("a", np.uint8, ["M", "K"]), graph.input("b", np.int8, ["K", "N"])
    graph.output("y", graph.op("MatMulInteger", a, b), np.int32, ["M", "N"])
    return graph.serialize()
