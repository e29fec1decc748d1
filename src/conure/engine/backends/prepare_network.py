"""Prepares a network to run on a device."""

from __future__ import annotations

import torch

from conure.models.folded_encoder import FoldedEncoder
from conure.models.network import Network

__all__ = ["prepare_network"]


def prepare_network(network: Network, device: torch.device, dtype: torch.dtype, *, folded: bool) -> Network:
    """Converts encoder and prompt to `dtype`, keeps the heads in float32, and folds the encoder if `folded`, in place.

    A folded encoder stays folded. float32 products use tf32 on CUDA, which is as precise as the encoder's type.
    """
    # Fold before rounding: products of rounded weights would be rounded twice.
    if folded and not isinstance(network.encoder, FoldedEncoder):
        network.encoder = FoldedEncoder(network.encoder)
    network.to(device).eval()
    network.encoder.to(dtype)
    if network.prompt is not None:
        network.prompt.to(dtype)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    return network
