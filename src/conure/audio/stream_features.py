"""Log-mel of parts of streams: the numbers `features` makes of the whole, with constant memory.

Mel frame i is centred on sample 160 i and its window reaches 200 samples to either side, so a frame is
ready when the 200 samples after its centre are there; at the end zeros stand for what is missing. The
statistics of a clip cannot be known before its end: normalisation is left to the caller.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from conure.audio.mel import MelConfig, MelExtractor
from conure.audio.sample_buffer import SampleBuffer

__all__ = ["FeatureExtractor", "MelStream", "first_sample", "ready_frames", "samples_for_frames", "span_samples"]


class FeatureExtractor(Protocol):
    """What makes the features of spans, in the form that its runner reads: arrays, or tensors where it is."""

    config: MelConfig

    def extract_spans(self, samples: np.ndarray, known: np.ndarray) -> Any:
        """Samples [B, N] from `first_sample` on, of which `known` [B] are real -> [B, T, features], not normalised.

        Frames are independent of one another, so rows may be anywhere in their streams. Zeros stand for what is
        before a stream's start; emphasis must not see its end, which is why `known` is told.
        """
        ...

    def normalize(self, mel: Any, frames: np.ndarray) -> Any:
        """Takes out what the checkpoint wants taken out of each row's frames [B]."""
        ...


def first_sample(frame: int, config: MelConfig) -> int:
    """Where the samples of a frame begin: half an FFT before its centre, and the one that emphasis needs."""
    return frame * config.hop - config.fft // 2 - 1


def span_samples(frames: int, config: MelConfig) -> int:
    """Samples that so many frames are made of."""
    return 1 + config.fft + (frames - 1) * config.hop


def ready_frames(samples: int, config: MelConfig) -> int:
    """Frames of a stream whose every sample under the window is there."""
    return max(0, (samples - config.window // 2) // config.hop + 1)


def samples_for_frames(frames: int, config: MelConfig) -> int:
    """Samples of a stream from which on it has so many frames, which is at least one."""
    return (frames - 1) * config.hop + config.window // 2


class MelStream:
    """One stream of samples. Not normalised: for models trained so ("NA") these are the final features."""

    def __init__(self, front: MelExtractor) -> None:
        self.extractor = front
        self.samples = SampleBuffer()
        self.frames = 0

    def push(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """samples [N] -> the mel frames that have become complete, [T, features]."""
        config = self.extractor.config
        self.samples.append(samples)
        total = self.samples.end // config.hop if last else ready_frames(self.samples.end, config)
        count = total - self.frames
        if count <= 0:
            return np.zeros((0, config.features), np.float32)
        begin = first_sample(self.frames, config)
        span = np.empty(span_samples(count, config), np.float32)
        self.samples.read_into(begin, span)
        known = np.array([self.samples.end - begin])
        self.frames = total
        self.samples.discard_before(first_sample(total, config))
        mel: np.ndarray = self.extractor.extract_spans(span[None], known)[0]
        return mel
