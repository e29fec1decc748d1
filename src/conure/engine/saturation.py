"""Whether sums of products of bytes are exact on this processor."""

from __future__ import annotations

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

__all__ = ["LEVELS", "REDUCED_LEVELS", "saturates"]

LEVELS, REDUCED_LEVELS = 127, 63
"""Of a weight's bytes, and where sums of full ones saturate."""


def saturates(graph: bytes) -> bool:
    """Whether sums of products of full bytes are wrong on this processor; `graph` is that of `quantize.probe`."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    a, b = np.full((16, 64), 255, np.uint8), np.full((64, 64), LEVELS, np.int8)
    return bool((session.run(None, {"a": a, "b": b})[0] != 64 * 255 * LEVELS).any())
