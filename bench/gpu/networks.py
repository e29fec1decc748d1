"""The measured networks: random weights of real sizes, made on the device when first used."""

from __future__ import annotations

import copy
from functools import cached_property

import torch

from bench.gpu.streams import RIGHTS
from bench.random_model import build, calibrate, random_live_checkpoint
from conure.audio.features import LogMel
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.models.checkpoint import Checkpoint
from conure.models.network import Network

__all__ = ["Networks"]

VOCABULARY, SECONDS = 8192, 30.0
"""Vocabulary, and seconds of speech to calibrate random weights with."""
SMALL_VOCABULARY, SMALL_SECONDS = 512, 3.0
"""The same on a CPU."""


class Networks:
    def __init__(self, device: torch.device, layers: int, width: int) -> None:
        self.device, self.layers, self.width = device, layers, width

    @cached_property
    def live(self) -> Checkpoint:
        """With the sizes of nemotron-speech-streaming-en-0.6b; tensors are on the device."""
        return random_live_checkpoint(self.layers, self.width, self.device, RIGHTS)

    @cached_property
    def runner(self) -> TorchClipRunner:
        """For clips."""
        network = self.network()
        return TorchClipRunner(network, LogMel(network.config.mel), self.device)

    def network(self) -> Network:
        """A copy, as folding changes it; with the sizes of parakeet-tdt-0.6b-v3."""
        return copy.deepcopy(self._offline)

    @cached_property
    def _offline(self) -> Network:
        vocabulary, seconds = (VOCABULARY, SECONDS) if self.device.type == "cuda" else (SMALL_VOCABULARY, SMALL_SECONDS)
        network = build(vocabulary, self.layers, self.width, self.device)
        calibrate(network, seconds)
        return network
