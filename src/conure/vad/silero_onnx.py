"""Silero VAD in ONNX Runtime: the reference implementation of the native kernel, and for CPUs that lack it."""

from __future__ import annotations

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

from conure.vad.silero_graph import silero_graph
from conure.vad.silero_weights import CONTEXT, HALF, PLACES, STEP, WIDTH, Numbers, Tensors

__all__ = ["SileroSession"]

AHEAD, BACK = PLACES[:, 1 : HALF + 1], PLACES[:, : HALF - 1 : -1]
"""Positions of the samples of the 4 frames, [4, 128], from the start and mirrored from the end."""


class SileroSession:
    """An ONNX Runtime session with one thread, because the recogniser uses the other cores."""

    def __init__(self, tensors: Tensors) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(silero_graph(tensors), options, providers=["CPUExecutionProvider"])

    def detect(self, samples: Numbers, memory: Numbers) -> Numbers:
        """samples [B, n * STEP] -> probabilities [B, n]; updates memory [B, MEMORY] in place."""
        context, hidden, cell = np.split(memory, (CONTEXT, CONTEXT + WIDTH), 1)
        with_context = np.concatenate([context, samples], 1)
        steps = STEP * np.arange(samples.shape[1] // STEP)[:, None, None]
        inputs = {
            "ahead": with_context[:, steps + AHEAD].swapaxes(0, 1).reshape(-1, *AHEAD.shape),
            "back": with_context[:, steps + BACK].swapaxes(0, 1).reshape(-1, *BACK.shape),
            "hidden": hidden[None],
            "cell": cell[None],
        }
        outputs, hidden, cell = self._session.run(None, inputs)
        np.concatenate([with_context[:, -CONTEXT:], hidden[0], cell[0]], 1, out=memory)
        probabilities: Numbers = outputs.reshape(-1, len(samples)).T
        return probabilities
