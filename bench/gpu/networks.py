"""The networks that are measured: random weights of real sizes, made on the device, each where it is first needed."""

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
"""Tokens, and speech that random weights are calibrated with."""
FEW, FEW_SECONDS = 512, 3.0
"""The same where it is only to be seen that the bench works."""


class Networks:
    def __init__(self, device: torch.device, layers: int, width: int) -> None:
        self.device, self.layers, self.width = device, layers, width

    @cached_property
    def live(self) -> Checkpoint:
        """Of nemotron-speech-streaming-en-0.6b's sizes; its tensors are on the device."""
        return random_live_checkpoint(self.layers, self.width, self.device, RIGHTS)

    @cached_property
    def runner(self) -> TorchClipRunner:
        """Of clips."""
        network = self.network()
        return TorchClipRunner(network, LogMel(network.config.mel), self.device)

    def network(self) -> Network:
        """A copy that may be folded, of parakeet-tdt-0.6b-v3's sizes."""
        return copy.deepcopy(self._offline)

    @cached_property
    def _offline(self) -> Network:
        vocabulary, seconds = (VOCABULARY, SECONDS) if self.device.type == "cuda" else (FEW, FEW_SECONDS)
        network = build(vocabulary, self.layers, self.width, self.device)
        calibrate(network, seconds)
        return network
