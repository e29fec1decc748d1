"""What runs a model that hears each chunk anew with what is around it."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from conure.audio.features import LogMel
from conure.engine.clip_decoder import PlainDecoder, StreamDecoder
from conure.engine.placing import prepared
from conure.models.config import AttentionContext, NetworkConfig
from conure.models.network import Heads, Network

__all__ = ["BufferedRunner", "TorchBufferedRunner"]


class BufferedRunner(Protocol):
    heads: Heads
    decoder: StreamDecoder[Any]
    front: LogMel
    config: NetworkConfig
    description: str

    def encode(
        self, mel: Tensor, frames: Tensor, context: AttentionContext, prompts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Windows of streams: mel [B, T, F], frames [B] -> encoded [B, S, D], counts [B], in the heads' type."""
        ...


class TorchBufferedRunner:
    """The modules as they are."""

    def __init__(self, network: Network, front: LogMel, device: torch.device, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        self.network = prepared(network, device, self.dtype, folded=False)
        self.heads: Heads = self.network
        self.decoder: StreamDecoder[Any] = PlainDecoder(self.heads)
        self.front = front.to(device)
        self.config = network.config
        self.description = f"torch {str(self.dtype).removeprefix('torch.')} on {device}"

    @torch.inference_mode()
    def encode(
        self, mel: Tensor, frames: Tensor, context: AttentionContext, prompts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        encoded, counts = self.network.encoder(mel.to(self.dtype), frames, context)
        return self.network.prompted(encoded, prompts).float(), counts
