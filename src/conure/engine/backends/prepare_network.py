"""A network is made ready to run on a device."""

from __future__ import annotations

import torch

from conure.models.folded_encoder import FoldedEncoder
from conure.models.network import Network

__all__ = ["prepared"]


def prepared(network: Network, device: torch.device, dtype: torch.dtype, *, folded: bool) -> Network:
    """The same network: encoder and prompt in a type of their own, the heads in float32; folded where that is asked.

    What was folded before stays so. Products of float32 are made of tf32 on CUDA, which rounds no more than the
    encoder does.
    """
    # Folded first and rounded then: products of weights that were rounded before would be rounded twice.
    if folded and not isinstance(network.encoder, FoldedEncoder):
        network.encoder = FoldedEncoder(network.encoder)
    network.to(device).eval()
    network.encoder.to(dtype)
    if network.prompt is not None:
        network.prompt.to(dtype)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    return network
