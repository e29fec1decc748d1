"""Detects whether int8 products saturate on this processor.

x86 with VNNI and ARM accumulate in 32 bits, which is exact. Other x86 processors (AVX2, AVX-512 without VNNI) add pairs
of products in 16 bits, which saturate; there, weights have 7 bits and int8 is about half as accurate.
"""

from __future__ import annotations

import functools
import io

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

from conure.native.library import has_native_kernels

__all__ = ["LEVELS", "REDUCED_LEVELS", "adds_in_16_bits", "saturates", "saturation_probe"]

LEVELS, REDUCED_LEVELS = 127, 63
"""Largest magnitude of int8 weights, and of 7-bit weights for processors that saturate."""


@functools.cache
def adds_in_16_bits() -> bool:
    """Whether int8 products saturate here. Processors that support the native kernels are known not to."""
    return not has_native_kernels() and saturates(saturation_probe())


def saturates(graph: bytes) -> bool:
    """Whether products of the largest int8 values are wrong on this processor; `graph` is from `saturation_probe`."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    a, b = np.full((16, 64), 255, np.uint8), np.full((64, 64), LEVELS, np.int8)
    return bool((session.run(None, {"a": a, "b": b})[0] != 64 * 255 * LEVELS).any())


def saturation_probe() -> bytes:
    """A graph that multiplies int8 matrices, to test how a processor accumulates."""
    from conure.engine.convert.onnx_graph import Graph, Weights  # noqa: PLC0415  only the exporter needs onnx

    graph = Graph(Weights(io.BytesIO(), ""))
    a, b = graph.input("a", np.uint8, ["M", "K"]), graph.input("b", np.int8, ["K", "N"])
    graph.output("y", graph.op("MatMulInteger", a, b), np.int32, ["M", "N"])
    return graph.serialize()
