"""The speech detector over many streams at once: each has an ear, the network is one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from conure.audio.sample_buffer import SampleBuffer
from conure.vad.silero import STEP, Silero, SileroState

__all__ = ["VadStream", "Speech", "listen"]

RATE = 16_000

CACHED_STEPS = 512
"""Whose spectra stay in a processor's cache."""

Speech = tuple[float, float, float]
"""Start, end and probability of a step of the speech detector."""


@dataclass(slots=True)
class VadStream:
    """One stream's."""

    samples: SampleBuffer = field(default_factory=SampleBuffer)
    state: SileroState = field(default_factory=SileroState)
    listened: int = 0
    """Samples that the detector has heard."""

    def rest(self, silero: Silero, end: int) -> Speech:
        """The step that begins now, as if the stream were silent from `end` on. It will be heard again."""
        samples = np.empty(STEP, np.float32)
        self.samples.read_into(self.listened, samples, end)
        probabilities, _ = silero.detect(samples, self.state)
        return self.listened / RATE, end / RATE, float(probabilities[0])


def listen(silero: Silero, wanted: Sequence[tuple[VadStream, int]]) -> list[list[Speech]]:
    """Each ear's whole steps up to the place it is wanted to listen to. Ears with as many steps share runs."""
    heard: list[list[Speech]] = [[] for _ in wanted]
    by_count: dict[int, list[int]] = defaultdict(list)
    for index, (ear, reached) in enumerate(wanted):
        by_count[(reached - ear.listened) // STEP].append(index)
    for count, indices in by_count.items():
        rows = max(CACHED_STEPS // max(count, 1), 1)
        for begin in range(0, len(indices) if count > 0 else 0, rows):
            some = indices[begin : begin + rows]
            for index, steps in zip(some, _listen(silero, [wanted[index][0] for index in some], count), strict=True):
                heard[index] = steps
    return heard


def _listen(silero: Silero, ears: Sequence[VadStream], count: int) -> Iterator[list[Speech]]:
    """The next steps of each, so many."""
    samples = np.empty((len(ears), count * STEP), np.float32)
    for ear, row in zip(ears, samples, strict=True):
        ear.samples.read_into(ear.listened, row)
    probabilities, states = silero.detect_batch(samples, [ear.state for ear in ears])
    begins = np.array([ear.listened for ear in ears])[:, None] + STEP * np.arange(count)
    told = (begins / RATE).tolist(), ((begins + STEP) / RATE).tolist(), probabilities.tolist()
    for ear, state, *steps in zip(ears, states, *told, strict=True):
        ear.state = state
        ear.listened += count * STEP
        yield list(zip(*steps, strict=True))
