"""How fast the machine multiplies at this moment: virtual machines share theirs, and their speed comes and goes."""

from __future__ import annotations

import io
import time

import numpy as np
import onnxruntime

from conure.engine.convert.onnx_graph import Graph, Weights

__all__ = ["int8_rate"]

ROWS, INNER, COLUMNS = 375, 1024, 4096
"""Of the largest product of the encoder, for 30 s."""
SECONDS = 0.5


def int8_rate(threads: int) -> float:
    """Billions of operations a second of int8 products in ONNX Runtime, the best of half a second."""
    graph = Graph(Weights(io.BytesIO(), ""))
    a, b = graph.input("a", np.uint8, ["M", "K"]), graph.input("b", np.int8, ["K", "N"])
    graph.output("y", graph.op("MatMulInteger", a, b), np.int32, ["M", "N"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph.serialize(), options, providers=["CPUExecutionProvider"])
    given = {"a": np.ones((ROWS, INNER), np.uint8), "b": np.ones((INNER, COLUMNS), np.int8)}
    begin, best = time.perf_counter(), float("inf")
    while time.perf_counter() - begin < SECONDS:
        start = time.perf_counter()
        session.run(None, given)
        best = min(best, time.perf_counter() - start)
    return 2 * ROWS * INNER * COLUMNS / best / 1e9
