"""Runs the windows of a unified model's streams in ONNX Runtime, with the graphs and weights of its clips."""

from __future__ import annotations

import numpy as np

from conure.engine.onnx_runner import OnnxRunner
from conure.models.config import AttentionContext

__all__ = ["OnnxBufferedRunner"]


class OnnxBufferedRunner:
    """Windows are encoded one by one: each keeps a CPU busy."""

    def __init__(self, clips: OnnxRunner) -> None:
        self.clips = clips
        self.decoder = clips.decoder
        self.front = clips.features
        self.config = clips.config
        self.description = clips.description

    def encode(
        self,
        mel: np.ndarray,
        frames: np.ndarray,
        left: np.ndarray,
        context: AttentionContext,
        prompts: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.config.prompts and prompts is None:
            raise ValueError("this model needs a prompt slot for every row")
        steps = self.clips.steps(frames)
        chunks = np.zeros((len(steps), context.chunk or 1, self.config.encoder.width), np.float32)
        counts = (steps - left).clip(0, chunks.shape[1])
        for row, count in enumerate(counts.tolist()):
            if count > 0:
                slot = None if prompts is None else prompts[row : row + 1]
                window = mel[row : row + 1, : frames[row]]
                encoded = self.clips.encode_one(window, int(steps[row]), slot, context)
                chunks[row, :count] = encoded[left[row] : left[row] + count]
        return chunks, counts
