"""The speech detector over many streams at once: each has an ear, the network is one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from conure.audio.backlog import Backlog
from conure.vad.silero import STEP, Silero, SileroState

__all__ = ["Ear", "Speech", "listen"]

RATE = 16_000

Speech = tuple[float, float, float]
"""Start, end and probability of a step of the speech detector."""


@dataclass(slots=True)
class Ear:
    """One stream's."""

    samples: Backlog = field(default_factory=Backlog)
    state: SileroState = field(default_factory=SileroState)
    listened: int = 0
    """Samples that the detector has heard."""

    def rest(self, silero: Silero, end: int) -> Speech:
        """The step that begins now, as if the stream were silent from `end` on. It will be heard again."""
        samples = np.empty(STEP, np.float32)
        self.samples.read(self.listened, samples, end)
        probabilities, _ = silero.listen(samples, self.state)
        return self.listened / RATE, end / RATE, float(probabilities[0])


def listen(silero: Silero, wanted: Sequence[tuple[Ear, int]]) -> list[list[Speech]]:
    """Each ear's whole steps up to the place it is wanted to listen to. Ears with as many steps share a run."""
    heard: list[list[Speech]] = [[] for _ in wanted]
    by_count: dict[int, list[int]] = defaultdict(list)
    for index, (ear, reached) in enumerate(wanted):
        by_count[(reached - ear.listened) // STEP].append(index)
    for count, indices in by_count.items():
        if count <= 0:
            continue
        ears = [wanted[index][0] for index in indices]
        samples = np.empty((len(ears), count * STEP), np.float32)
        for ear, row in zip(ears, samples, strict=True):
            ear.samples.read(ear.listened, row)
        probabilities, states = silero.listen_together(samples, [ear.state for ear in ears])
        for index, ear, row, state in zip(indices, ears, probabilities, states, strict=True):
            places = (ear.listened + STEP * np.arange(count + 1)) / RATE
            heard[index] = list(zip(places[:-1].tolist(), places[1:].tolist(), row.tolist(), strict=True))
            ear.state = state
            ear.listened += count * STEP
    return heard
