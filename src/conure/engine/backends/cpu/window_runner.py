"""Runs the windows of a unified model's streams like clips."""

from __future__ import annotations

import numpy as np

from conure.engine.backends.cpu.clip_runner import CpuClipRunner
from conure.models.config import AttentionContext
from conure.models.preemptible import run_to_end

__all__ = ["CpuWindowRunner"]


class CpuWindowRunner:
    def __init__(self, clips: CpuClipRunner) -> None:
        self.clips = clips
        self.decoder = clips.decoder
        self.feature_extractor = clips.feature_extractor
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
        encoded, steps = run_to_end(self.clips.encode_mel(mel, frames, prompts, context))
        chunks = np.zeros((len(steps), context.chunk or 1, self.config.encoder.width), np.float32)
        counts = (steps - left).clip(0, chunks.shape[1])
        for row, count in enumerate(counts.tolist()):
            chunks[row, :count] = encoded[row, left[row] : left[row] + count]
        return chunks, counts
