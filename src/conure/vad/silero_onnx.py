"""Silero VAD in ONNX Runtime: the plain twin of the native kernel, and for processors that it does not run on."""

from __future__ import annotations

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

from conure.vad.silero_graph import silero_graph
from conure.vad.silero_weights import CONTEXT, HALF, PLACES, STEP, WIDTH, Numbers, Tensors

__all__ = ["SileroSession"]

AHEAD, BACK = PLACES[:, 1 : HALF + 1], PLACES[:, : HALF - 1 : -1]
"""[4, 128], the frames from either end."""


class SileroSession:
    """On one thread: it shares the machine with the recognizer."""

    def __init__(self, tensors: Tensors) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(silero_graph(tensors), options, providers=["CPUExecutionProvider"])

    def detect(self, samples: Numbers, memory: Numbers) -> Numbers:
        """samples [B, n * STEP] -> probabilities [B, n]; memory [B, MEMORY] moves on."""
        context, hidden, cell = np.split(memory, (CONTEXT, CONTEXT + WIDTH), 1)
        known = np.concatenate([context, samples], 1)
        steps = STEP * np.arange(samples.shape[1] // STEP)[:, None, None]
        given = {
            "ahead": known[:, steps + AHEAD].swapaxes(0, 1).reshape(-1, *AHEAD.shape),
            "back": known[:, steps + BACK].swapaxes(0, 1).reshape(-1, *BACK.shape),
            "hidden": hidden[None],
            "cell": cell[None],
        }
        heard, hidden, cell = self._session.run(None, given)
        np.concatenate([known[:, -CONTEXT:], hidden[0], cell[0]], 1, out=memory)
        probabilities: Numbers = heard.reshape(-1, len(samples)).T
        return probabilities
