"""Small random networks with the real architecture, for tests that need code paths but no words."""

from __future__ import annotations

import torch

from conure.audio.mel import MelConfig
from conure.models.checkpoint import Checkpoint
from conure.models.config import AttentionContext, EncoderConfig, NetworkConfig
from conure.models.network import Network
from conure.text.tokenizer import LabelTokenizer

STREAMING = EncoderConfig(
    features=32,
    layers=3,
    width=32,
    heads=4,
    channels=8,
    bias=False,
    causal_subsampling=True,
    causal_convolution=True,
    norm="layer_norm",
    style="chunked_limited",
    contexts=tuple(AttentionContext(70, right) for right in (13, 6, 1, 0)),
)
OFFLINE = EncoderConfig(features=32, layers=3, width=32, heads=4, channels=8, scale_input=True)


def network(encoder: EncoderConfig, seed: int = 0, **heads: object) -> Network:
    """Weights far enough from zero to reveal mistakes, and normalisation statistics that are not trivial."""
    torch.manual_seed(seed)
    mel = MelConfig(features=encoder.features, normalize="NA")
    net = Network(NetworkConfig(encoder=encoder, mel=mel, vocabulary=20, **heads))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "pos_bias" in name:
                parameter.normal_(0, 0.3)
            elif parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        for name, buffer in net.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.2)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return net.eval()


def checkpoint_of(net: Network) -> Checkpoint:
    labels = LabelTokenizer([f"▁{index}" for index in range(net.config.vocabulary)])
    tensors = {name: t for name, t in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    return Checkpoint(net.config, tensors, labels, name="random")


def mel(lengths: list[int], features: int = 32, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise instead of log-mel: [B, T, features] and lengths [B]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(lengths), max(lengths), features, generator=generator), torch.tensor(lengths)
