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
from conure.engine.backends.prepare_network import prepare_network
from conure.engine.backends.torch_eager.decoder import TorchDecoder
from conure.engine.lanes.batching import padded_steps
from conure.models.config import STEP_FRAMES
from conure.models.network import Heads, Network
from conure.models.preemptible import Preemptible

__all__ = ["TorchClipRunner"]

SUBSAMPLING_STEPS = 1500
"""Encoder steps (2 minutes) of one run of the subsampling, which would need gigabytes for longer clips."""

MAX_COMPILED_SHAPES = 64
"""Shapes that layers are compiled for: a few batch sizes at common lengths. Further shapes run uncompiled."""


class TorchClipRunner:
    """Runs clips in torch: float32 on the CPU, bfloat16 on CUDA by default; features and heads stay in float32.

    `folded` layers and bucketed lengths are the default on CUDA only; the unfolded modules are the reference. Folding
    changes the given network. `compiled` layers need seconds for each new shape, once for all layers.
    """

    def __init__(
        self,
        network: Network,
        log_mel: LogMel,
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
        self.feature_extractor = log_mel.to(device)
        self.folded = device.type == "cuda" if folded is None else folded
        self.network = prepare_network(network, device, self.dtype, folded=self.folded)
        self.encoder = self.network.encoder
        if compiled:
            torch._dynamo.config.recompile_limit = MAX_COMPILED_SHAPES
            for layer in self.encoder.layers:
                layer.compile(dynamic=False)
        self.heads: Heads = self.network
        uses_graphs = device.type == "cuda" and network.config.predictor_width
        self.decoder: ClipDecoder = (
            GraphDecoder(self.heads, graph_capturer_for(device)) if uses_graphs else TorchDecoder(self.heads)
        )
        self.description = f"torch {str(self.dtype).removeprefix('torch.')} on {device}"

    @torch.inference_mode()
    def encode(self, samples: Any, lengths: Any, prompts: Any = None) -> Preemptible[tuple[Tensor, Tensor]]:
        """A slice is a layer. Does not synchronise with the device."""
        samples, lengths = (self._to_device(part) for part in (samples, lengths))
        mel, frames = self.feature_extractor(self._pad_to_bucket(samples) if self.folded else samples, lengths)
        chunk = SUBSAMPLING_STEPS if mel.shape[1] > SUBSAMPLING_STEPS * STEP_FRAMES else None
        x, counts = self.encoder.subsample(mel.to(self.dtype), frames, chunk)
        encoded = yield from self.encoder.encode_by_layer(x, counts)
        prompt_ids = None if prompts is None else self._to_device(prompts)
        return self.network.apply_prompt(encoded, prompt_ids).float(), counts

    def _to_device(self, part: Any) -> Tensor:
        """Copies an array or a tensor to the device."""
        return torch.as_tensor(part).to(self.device, non_blocking=True)

    def _pad_to_bucket(self, samples: Tensor) -> Tensor:
        """Pads samples [B, N] to the number of steps of their bucket."""
        step = STEP_FRAMES * self.feature_extractor.config.hop
        extra = int(self.encoder.config.causal_subsampling)  # causal networks have one step more
        steps = padded_steps(-(-samples.shape[1] // step) + extra)
        return F.pad(samples, (0, (steps - extra) * step - samples.shape[1]))


def _prefer_onednn() -> None:
    """Selects oneDNN, which is twice as fast as MKL on AMD; "medium" has float32 accuracy there.

    CPUs with AMX keep the default, because oneDNN would compute in bfloat16.
    """
    if not torch.cpu._is_amx_tile_supported():
        torch.set_float32_matmul_precision("medium")
