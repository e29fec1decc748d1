"""Runs the windows of a unified model's streams in ONNX Runtime, with the graphs and weights of its clips."""

from __future__ import annotations

import torch
from torch import Tensor

from conure.engine.onnx_runner import OnnxRunner
from conure.models.config import AttentionContext
from conure.models.network import Heads

__all__ = ["OnnxBufferedRunner"]


class OnnxBufferedRunner:
    """Windows are encoded one by one: each keeps a CPU busy."""

    def __init__(self, clips: OnnxRunner) -> None:
        self.clips = clips
        self.heads: Heads = clips.heads
        self.decoder = clips.decoder
        self.front = clips.features
        self.config = clips.checkpoint.config
        self.description = clips.description

    @torch.inference_mode()
    def encode(
        self, mel: Tensor, frames: Tensor, context: AttentionContext, prompts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if self.config.prompts and prompts is None:
            raise ValueError("this model needs a prompt slot for every row")
        counts = self.clips.steps(frames)
        encoded = torch.zeros(len(counts), max(int(counts.max()), 1), self.config.encoder.width)
        for row, (length, count) in enumerate(zip(frames.tolist(), counts.tolist(), strict=True)):
            if count > 0:
                slot = None if prompts is None else prompts[row : row + 1]
                encoded[row, :count] = self.clips.encode_one(mel[row : row + 1, :length], count, slot, context)
        return encoded, counts
