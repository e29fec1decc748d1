"""Runs the windows of a unified model's streams as its clips are run."""

from __future__ import annotations

import torch
from torch import Tensor

from conure.engine.onnx_runner import OnnxRunner
from conure.models.config import AttentionContext
from conure.models.network import Heads
from conure.models.slices import finish

__all__ = ["OnnxBufferedRunner"]


class OnnxBufferedRunner:
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
        return finish(self.clips.encode_mel(mel, frames, prompts, context))
