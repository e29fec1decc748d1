"""A runner that knows the words of recordings, and returns those in its clip."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from conure.engine.backends.device import CPU
from conure.engine.backends.torch_eager.decoder import TorchDecoder
from conure.models.preemptible import Preemptible
from conure.text.tokenizer import LabelTokenizer
from tests.vad.digits import NAMES
from tests.vad.planted import KnowingRecogniser

RATE, STEP_SECONDS = 16_000, 0.08
WORDS = [*NAMES, "rest"]
TOKENIZER = LabelTokenizer([f"▁{word}" for word in WORDS])


class KnowingRunner:
    """Returns the labels of each frame as a CTC head does."""

    description = "knows"

    def __init__(self, recordings, jitter=0.0):
        self.recordings = [(samples, KnowingRecogniser(words, jitter)) for samples, words in recordings]
        self.seconds = 0.0
        """Audio that was transcribed, without padding."""
        blank = len(WORDS)
        config = SimpleNamespace(predictor_width=0, prompts=0, ctc=True, blank=blank)
        self.config, self.device = config, CPU
        heads = SimpleNamespace(config=config, device=torch.device("cpu"), ctc_head=lambda encoded: encoded)
        self.decoder = TorchDecoder(heads)

    def encode(self, samples, lengths, prompts=None) -> Preemptible[tuple[Tensor, Tensor]]:
        counts = lengths * 100 // RATE // 8 + 1
        encoded = torch.zeros(len(samples), int(counts.max()), len(WORDS) + 1)
        encoded[..., -1] = 5.0
        for row, clip in enumerate(samples):
            yield
            seconds = int(lengths[row]) / RATE
            self.seconds += seconds
            last = -1
            for word in self._hear(clip, seconds):
                first = max(int(word.start / STEP_SECONDS), last + 2)  # a blank between two of the same
                last = max(first, min(int(word.end / STEP_SECONDS) - 1, int(counts[row]) - 1))
                encoded[row, first : last + 1, WORDS.index(word.text)] = 10.0
        return encoded, torch.from_numpy(counts)

    def _hear(self, clip, seconds):
        for samples, recogniser in self.recordings:
            for place in np.flatnonzero(samples[: len(samples) - 399] == clip[0]):
                if np.array_equal(samples[place : place + 400], clip[:400]):
                    most = (len(samples) - int(place)) / RATE
                    return recogniser.hear(int(place) / RATE, min(seconds, most) + 1e-6)  # sums are rounded
        raise AssertionError("a clip of no recording")
