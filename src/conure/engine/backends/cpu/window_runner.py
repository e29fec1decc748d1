"""Runs the windows of a unified model's streams as its clips are run."""

from __future__ import annotations

import numpy as np

from conure.engine.backends.cpu.clip_runner import CpuClipRunner
from conure.models.config import AttentionContext
from conure.models.preemptible import finish

__all__ = ["CpuWindowRunner"]


class CpuWindowRunner:
    def __init__(self, clips: CpuClipRunner) -> None:
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
        encoded, steps = finish(self.clips.encode_mel(mel, frames, prompts, context))
        chunks = np.zeros((len(steps), context.chunk or 1, self.config.encoder.width), np.float32)
        counts = (steps - left).clip(0, chunks.shape[1])
        for row, count in enumerate(counts.tolist()):
            chunks[row, :count] = encoded[row, left[row] : left[row] + count]
        return chunks, counts
