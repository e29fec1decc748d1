"""A checkpoint becomes the runners of torch that a model needs."""

from __future__ import annotations

import torch

from conure.engine.backends.cuda.stream_model import CudaStreamModel
from conure.engine.backends.device import Device
from conure.engine.backends.registry import WINDOWED, OpenedModel
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.engine.backends.torch_eager.stream_runner import TorchStreamRunner
from conure.engine.backends.torch_eager.window_runner import TorchWindowRunner
from conure.models.checkpoint import Checkpoint
from conure.models.loader import build_network

__all__ = ["open_torch"]


def open_torch(checkpoint: Checkpoint, device: Device, threads: int | None, *, live: bool, clips: bool) -> OpenedModel:
    place = torch.device(str(device))
    if threads and place.type == "cpu":
        torch.set_num_threads(threads)
    network, front = build_network(checkpoint)
    encoder = network.config.encoder
    if live and encoder.is_cache_aware and place.type == "cuda":
        on_device = CudaStreamModel(network, front, place)
        return OpenedModel(
            checkpoint, place, TorchClipRunner(network, front, place) if clips else None, cuda_model=on_device
        )
    if live and encoder.is_cache_aware:
        streams = TorchStreamRunner(network, front, place)
        return OpenedModel(checkpoint, place, TorchClipRunner(network, front, place) if clips else None, streams)
    if live and encoder.style == WINDOWED:
        windows = TorchWindowRunner(network, front, place)
        return OpenedModel(
            checkpoint, place, TorchClipRunner(network, front, place) if clips else None, window_runner=windows
        )
    return OpenedModel(checkpoint, place, TorchClipRunner(network, front, place))
