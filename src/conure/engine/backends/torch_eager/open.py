"""Opens the torch runners of a checkpoint."""

from __future__ import annotations

import torch

from conure.engine.backends.cuda.stream_model import CudaStreamModel
from conure.engine.backends.device import Device
from conure.engine.backends.registry import UNIFIED_STYLE, OpenedModel
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.engine.backends.torch_eager.stream_runner import TorchStreamRunner
from conure.engine.backends.torch_eager.window_runner import TorchWindowRunner
from conure.models.checkpoint import Checkpoint
from conure.models.loader import build_network

__all__ = ["open_torch"]


def open_torch(checkpoint: Checkpoint, target: Device, threads: int | None, *, live: bool, clips: bool) -> OpenedModel:
    device = torch.device(str(target))
    if threads and device.type == "cpu":
        torch.set_num_threads(threads)
    network, log_mel = build_network(checkpoint)
    encoder = network.config.encoder
    if live and encoder.is_cache_aware and device.type == "cuda":
        cuda_model = CudaStreamModel(network, log_mel, device)
        return OpenedModel(
            checkpoint, device, TorchClipRunner(network, log_mel, device) if clips else None, cuda_model=cuda_model
        )
    if live and encoder.is_cache_aware:
        stream_runner = TorchStreamRunner(network, log_mel, device)
        return OpenedModel(
            checkpoint, device, TorchClipRunner(network, log_mel, device) if clips else None, stream_runner
        )
    if live and encoder.style == UNIFIED_STYLE:
        window_runner = TorchWindowRunner(network, log_mel, device)
        return OpenedModel(
            checkpoint,
            device,
            TorchClipRunner(network, log_mel, device) if clips else None,
            window_runner=window_runner,
        )
    return OpenedModel(checkpoint, device, TorchClipRunner(network, log_mel, device))
