"""The current speed of int8 products: virtual machines share cores, so their speed varies."""

from __future__ import annotations

import io
import time

import numpy as np
import onnxruntime

from conure.engine.convert.onnx_graph import Graph, Weights

__all__ = ["int8_rate"]

ROWS, INNER, COLUMNS = 375, 1024, 4096
"""Shape of the encoder's largest product, for 30 s of audio."""
SECONDS = 0.5


def int8_rate(threads: int) -> float:
    """Billions of operations per second of int8 products in ONNX Runtime, the best within SECONDS."""
    graph = Graph(Weights(io.BytesIO(), ""))
    a, b = graph.input("a", np.uint8, ["M", "K"]), graph.input("b", np.int8, ["K", "N"])
    graph.output("y", graph.op("MatMulInteger", a, b), np.int32, ["M", "N"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph.serialize(), options, providers=["CPUExecutionProvider"])
    inputs = {"a": np.ones((ROWS, INNER), np.uint8), "b": np.ones((INNER, COLUMNS), np.int8)}
    started_at, best = time.perf_counter(), float("inf")
    while time.perf_counter() - started_at < SECONDS:
        start = time.perf_counter()
        session.run(None, inputs)
        best = min(best, time.perf_counter() - start)
    return 2 * ROWS * INNER * COLUMNS / best / 1e9
