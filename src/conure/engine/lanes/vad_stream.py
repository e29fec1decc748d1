"""The speech detector over many streams at once: each stream has its own state, and the network is shared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from conure.audio.sample_buffer import SampleBuffer
from conure.constants import SAMPLE_RATE
from conure.vad.silero import STEP, Silero, SileroState

__all__ = ["VadStream", "Speech", "detect_speech"]


CACHED_STEPS = 512
"""Steps whose spectra fit a CPU's cache."""

Speech = tuple[float, float, float]
"""Start, end and probability of a step of the speech detector."""


@dataclass(slots=True)
class VadStream:
    samples: SampleBuffer = field(default_factory=SampleBuffer)
    state: SileroState = field(default_factory=SileroState)
    processed: int = 0
    """Samples that the detector has processed."""

    def probe_remainder(self, silero: Silero, end: int) -> Speech:
        """The next step with silence from `end` on. Does not change the state: the step is processed again later."""
        samples = np.empty(STEP, np.float32)
        self.samples.read_into(self.processed, samples, end)
        probabilities, _ = silero.detect(samples, self.state)
        return self.processed / SAMPLE_RATE, end / SAMPLE_RATE, float(probabilities[0])


def detect_speech(silero: Silero, targets: Sequence[tuple[VadStream, int]]) -> list[list[Speech]]:
    """Processes the complete steps of each stream up to its target sample. Streams with as many steps share batches."""
    results: list[list[Speech]] = [[] for _ in targets]
    by_count: dict[int, list[int]] = defaultdict(list)
    for index, (stream, end) in enumerate(targets):
        by_count[(end - stream.processed) // STEP].append(index)
    for count, indices in by_count.items():
        rows = max(CACHED_STEPS // max(count, 1), 1)
        for begin in range(0, len(indices) if count > 0 else 0, rows):
            batch = indices[begin : begin + rows]
            streams = [targets[index][0] for index in batch]
            for index, steps in zip(batch, _detect_batch(silero, streams, count), strict=True):
                results[index] = steps
    return results


def _detect_batch(silero: Silero, streams: Sequence[VadStream], count: int) -> Iterator[list[Speech]]:
    """The next `count` steps of each stream."""
    samples = np.empty((len(streams), count * STEP), np.float32)
    for stream, row in zip(streams, samples, strict=True):
        stream.samples.read_into(stream.processed, row)
    probabilities, states = silero.detect_batch(samples, [stream.state for stream in streams])
    begins = np.array([stream.processed for stream in streams])[:, None] + STEP * np.arange(count)
    columns = (begins / SAMPLE_RATE).tolist(), ((begins + STEP) / SAMPLE_RATE).tolist(), probabilities.tolist()
    for stream, state, *steps in zip(streams, states, *columns, strict=True):
        stream.state = state
        stream.processed += count * STEP
        yield list(zip(*steps, strict=True))
