"""Runs the modules as they are, on the CPU or a CUDA device."""

from __future__ import annotations

import torch
from torch import Tensor

from conure.audio.features import LogMel
from conure.models.network import Heads, Network
from conure.models.slices import Slices

__all__ = ["TorchRunner"]

CHUNK_STEPS = 1500
"""Encoder steps (2 minutes) subsampled at a time: longer clips would need gigabytes for that alone."""


class TorchRunner:
    """float32 on the CPU, bfloat16 on CUDA unless told otherwise; features and heads stay in float32."""

    def __init__(self, network: Network, front: LogMel, device: torch.device, dtype: torch.dtype | None = None) -> None:
        self.device = device
        self.dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        if device.type == "cpu":
            _prefer_onednn()
        self.front = front.to(device)
        self.network = network.to(device).eval()
        self.network.encoder.to(self.dtype)
        if self.network.prompt is not None:
            self.network.prompt.to(self.dtype)
        self.heads: Heads = self.network
        self.description = f"torch {str(self.dtype).removeprefix('torch.')} on {device}"

    @torch.inference_mode()
    def encode(self, samples: Tensor, lengths: Tensor, prompts: Tensor | None = None) -> Slices[tuple[Tensor, Tensor]]:
        """A slice is a layer."""
        mel, frames = self.front(samples.to(self.device), lengths.to(self.device))
        chunk = CHUNK_STEPS if mel.shape[1] > CHUNK_STEPS * 8 else None
        x, counts = self.network.encoder.subsample(mel.to(self.dtype), frames, chunk)
        encoded = yield from self.network.encoder.layer_by_layer(x, counts)
        encoded = self.network.prompted(encoded, None if prompts is None else prompts.to(self.device))
        return encoded.float(), counts


def _prefer_onednn() -> None:
    """MKL is twice as slow as oneDNN on AMD, and "medium" chooses oneDNN with float32 accuracy there.

    Where the CPU has AMX, oneDNN would compute in bfloat16: those keep the default.
    """
    if not torch.cpu._is_amx_tile_supported():
        torch.set_float32_matmul_precision("medium")
