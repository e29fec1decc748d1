"""Runs the modules as they are on the CPU, and their folded form on a CUDA device."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from conure.audio.features import LogMel
from conure.engine.backends.cuda.graph_capture import graph_capturer_for
from conure.engine.backends.cuda.graph_decoder import GraphDecoder
from conure.engine.backends.decoder import ClipDecoder
from conure.engine.backends.prepare_network import prepared
from conure.engine.backends.torch_eager.decoder import TorchDecoder
from conure.engine.lanes.batching import bucket
from conure.models.config import STEP_FRAMES
from conure.models.network import Heads, Network
from conure.models.preemptible import Preemptible

__all__ = ["TorchClipRunner"]

SUBSAMPLING_STEPS = 1500
"""Encoder steps (2 minutes) subsampled at a time: longer clips would need gigabytes for that alone."""

MOST_COMPILED = 64
"""Shapes that layers are compiled for: a few batch sizes at the lengths that occur. What is beyond runs as it is."""


class TorchClipRunner:
    """float32 on the CPU, bfloat16 on CUDA unless told otherwise; features and heads stay in float32.

    `folded` layers and bucketed lengths are CUDA's, and may be asked for elsewhere; the plain modules are their twin.
    Folding changes the network that is given. `compiled` layers take seconds at every new shape, once for all layers.
    """

    def __init__(
        self,
        network: Network,
        front: LogMel,
        device: torch.device,
        dtype: torch.dtype | None = None,
        folded: bool | None = None,
        compiled: bool = False,
    ) -> None:
        self.device = device
        self.config = network.config
        self.dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        if device.type == "cpu":
            _prefer_onednn()
        self.feature_extractor = front.to(device)
        self.folded = device.type == "cuda" if folded is None else folded
        self.network = prepared(network, device, self.dtype, folded=self.folded)
        self.encoder = self.network.encoder
        if compiled:
            torch._dynamo.config.recompile_limit = MOST_COMPILED
            for layer in self.encoder.layers:
                layer.compile(dynamic=False)
        self.heads: Heads = self.network
        recorded = device.type == "cuda" and network.config.predictor_width
        self.decoder: ClipDecoder = (
            GraphDecoder(self.heads, graph_capturer_for(device)) if recorded else TorchDecoder(self.heads)
        )
        self.description = f"torch {str(self.dtype).removeprefix('torch.')} on {device}"

    @torch.inference_mode()
    def encode(self, samples: Any, lengths: Any, prompts: Any = None) -> Preemptible[tuple[Tensor, Tensor]]:
        """A slice is a layer. Nothing in it waits for the device."""
        samples, lengths = (self._sent(part) for part in (samples, lengths))
        mel, frames = self.feature_extractor(self._padded(samples) if self.folded else samples, lengths)
        chunk = SUBSAMPLING_STEPS if mel.shape[1] > SUBSAMPLING_STEPS * STEP_FRAMES else None
        x, counts = self.encoder.subsample(mel.to(self.dtype), frames, chunk)
        encoded = yield from self.encoder.encode_by_layer(x, counts)
        slots = None if prompts is None else self._sent(prompts)
        return self.network.apply_prompt(encoded, slots).float(), counts

    def _sent(self, part: Any) -> Tensor:
        """An array or a tensor, on the device."""
        return torch.as_tensor(part).to(self.device, non_blocking=True)

    def _padded(self, samples: Tensor) -> Tensor:
        """[B, N] -> as many samples as give the bucket's steps."""
        step = STEP_FRAMES * self.feature_extractor.config.hop
        extra = int(self.encoder.config.causal_subsampling)  # causal networks make a step more
        steps = bucket(-(-samples.shape[1] // step) + extra)
        return F.pad(samples, (0, (steps - extra) * step - samples.shape[1]))


def _prefer_onednn() -> None:
    """MKL is twice as slow as oneDNN on AMD, and "medium" chooses oneDNN with float32 accuracy there.

    Where the CPU has AMX, oneDNN would compute in bfloat16: those keep the default.
    """
    if not torch.cpu._is_amx_tile_supported():
        torch.set_float32_matmul_precision("medium")
