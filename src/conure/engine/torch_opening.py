"""A checkpoint becomes the runners of torch that a model needs."""

from __future__ import annotations

import torch

from conure.engine.device import Device
from conure.engine.live_runner import LiveRunner
from conure.engine.opening import WINDOWED, Opened
from conure.engine.torch_buffered_runner import TorchBufferedRunner
from conure.engine.torch_runner import TorchRunner
from conure.engine.torch_stream_runner import TorchStreamRunner
from conure.models.checkpoint import Checkpoint
from conure.models.loading import build_network

__all__ = ["open_torch"]


def open_torch(checkpoint: Checkpoint, device: Device, threads: int | None, *, live: bool, clips: bool) -> Opened:
    place = torch.device(str(device))
    if threads and place.type == "cpu":
        torch.set_num_threads(threads)
    network, front = build_network(checkpoint)
    encoder = network.config.encoder
    if live and encoder.cache_aware and place.type == "cuda":
        on_device = LiveRunner(network, front, place)
        return Opened(
            checkpoint, place, TorchRunner(network, front, place) if clips else None, device_streams=on_device
        )
    if live and encoder.cache_aware:
        streams = TorchStreamRunner(network, front, place)
        return Opened(checkpoint, place, TorchRunner(network, front, place) if clips else None, streams)
    if live and encoder.style == WINDOWED:
        windows = TorchBufferedRunner(network, front, place)
        return Opened(checkpoint, place, TorchRunner(network, front, place) if clips else None, windows=windows)
    return Opened(checkpoint, place, TorchRunner(network, front, place))
