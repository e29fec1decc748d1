"""Runs the windows of a unified model's streams with the plain modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from conure.audio.features import LogMel
from conure.engine.backends.decoder import StreamDecoder
from conure.engine.backends.prepare_network import prepare_network
from conure.engine.backends.torch_eager.decoder import TorchDecoder
from conure.models.config import AttentionContext
from conure.models.network import Heads, Network

__all__ = ["TorchWindowRunner"]


class TorchWindowRunner:
    """The encoder is in bfloat16 on CUDA by default, the rest in float32."""

    def __init__(
        self, network: Network, log_mel: LogMel, device: torch.device, dtype: torch.dtype | None = None
    ) -> None:
        self.dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        self.network = prepare_network(network, device, self.dtype, folded=False)
        self.heads: Heads = self.network
        self.decoder: StreamDecoder[Any] = TorchDecoder(self.heads)
        self.feature_extractor = log_mel.to(device)
        self.config = network.config
        self.description = f"torch {str(self.dtype).removeprefix('torch.')} on {device}"

    @torch.inference_mode()
    def encode(
        self,
        mel: Any,
        frames: np.ndarray,
        left: np.ndarray,
        context: AttentionContext,
        prompts: np.ndarray | None = None,
    ) -> tuple[Tensor, Tensor]:
        device = self.heads.device
        mel = torch.as_tensor(mel, device=device)
        lengths, left_steps = (torch.as_tensor(numbers, device=device) for numbers in (frames, left))
        prompt_ids = None if prompts is None else torch.as_tensor(prompts, device=device)
        encoded, counts = self.network.encoder(mel.to(self.dtype), lengths, context)
        indices = left_steps[:, None] + torch.arange(context.chunk or 1, device=device)
        indices = indices.clamp(max=encoded.shape[1] - 1)
        chunk = encoded.gather(1, indices[..., None].expand(-1, -1, encoded.shape[2]))
        return self.network.apply_prompt(chunk, prompt_ids).float(), (counts - left_steps).clamp(
            min=0, max=chunk.shape[1]
        )
