"""Words planted at known times, a fake detector that knows them, and a fake recogniser that finds those in its clip.

The samples of a `ramp` are their own indices, which reveal the position of a clip.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from conure.types import Word

RATE, STEP = 16_000, 512


def ramp(seconds):
    """float32 [n], exact up to 17 minutes."""
    return np.arange(round(seconds * RATE), dtype=np.float32)


def probabilities(words, count, inside=0.95, outside=0.02):
    """One probability per step of `count` samples: high if a word overlaps the step."""
    heard = np.full(-(-count // STEP), outside, np.float32)
    for word in words:
        heard[int(word.start * RATE) // STEP : -(-int(word.end * RATE) // STEP)] = inside
    return heard


class KnowingDetector:
    """A detector that returns the positions of the planted words."""

    def __init__(self, words, count):
        self.heard = probabilities(words, count)
        self.samples = self.told = 0

    def push(self, samples):
        self.samples += len(samples)
        return self._tell(self.samples // STEP)

    def finish(self):
        return self._tell(-(-self.samples // STEP))

    def _tell(self, until):
        first, self.told = self.told, until
        return self.heard[first:until]


@dataclass
class KnowingRecogniser:
    """Recognises words that are completely in a clip, at slightly wrong times, and sometimes a part of a split one."""

    words: list[Word]
    jitter: float = 0.0
    seed: int = 0

    def __call__(self, clips):
        return [self.hear(int(clip[0]) / RATE, len(clip) / RATE) for clip in clips]

    def hear(self, start, seconds):
        chance = random.Random(f"{self.seed} {start}")
        found = []
        for word in self.words:
            begin, end = max(word.start, start), min(word.end, start + seconds)
            if (begin, end) == (word.start, word.end):
                shift = chance.uniform(-self.jitter, self.jitter)
                found.append(Word(word.text, begin - start + shift, end - start + shift))
            elif end - begin > 0.05 and chance.random() < 0.7:
                found.append(Word("rest", begin - start, end - start))
        return found
