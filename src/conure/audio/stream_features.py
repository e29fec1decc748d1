"""Log-mel of streams in constant memory, with the same results as for the whole clip.

Mel frame i is centred on sample 160 i and its window reaches 200 samples to either side, so a frame is ready as soon as
the 200 samples after its centre are available; at the end, missing samples are zero. Statistics of a clip are not known
before its end, so the caller normalises.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from conure.audio.mel import MelConfig, MelExtractor
from conure.audio.sample_buffer import SampleBuffer

__all__ = ["FeatureExtractor", "MelStream", "first_sample", "ready_frames", "samples_for_frames", "span_samples"]


class FeatureExtractor(Protocol):
    """Computes features of spans of samples, as arrays or as tensors on the runner's device."""

    config: MelConfig

    def extract_spans(self, samples: np.ndarray, lengths: np.ndarray) -> Any:
        """Samples [B, N] from `first_sample` on, of which `lengths` [B] are valid -> [B, T, features], not normalised.

        Frames are independent of one another, so rows may be at any position of their streams. Samples before a
        stream's start are zero. Pre-emphasis stops at the end of the valid samples.
        """
        ...

    def normalize(self, mel: Any, frames: np.ndarray) -> Any:
        """Normalises each row's frames [B] as the checkpoint requires."""
        ...


def first_sample(frame: int, config: MelConfig) -> int:
    """Index of the first sample of a frame: half an FFT before its centre, and one more for pre-emphasis."""
    return frame * config.hop - config.fft // 2 - 1


def span_samples(frames: int, config: MelConfig) -> int:
    """Number of samples from which `frames` frames are computed."""
    return 1 + config.fft + (frames - 1) * config.hop


def ready_frames(samples: int, config: MelConfig) -> int:
    """Number of frames of a stream whose windows are complete after `samples` samples."""
    return max(0, (samples - config.window // 2) // config.hop + 1)


def samples_for_frames(frames: int, config: MelConfig) -> int:
    """Number of samples after which a stream has `frames` complete frames, at least one."""
    return (frames - 1) * config.hop + config.window // 2


class MelStream:
    """Features of one stream, not normalised: final for models with normalisation "NA"."""

    def __init__(self, front: MelExtractor) -> None:
        self.extractor = front
        self.samples = SampleBuffer()
        self.frames = 0

    def push(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """samples [N] -> the mel frames that are complete now, [T, features]."""
        config = self.extractor.config
        self.samples.append(samples)
        total = self.samples.end // config.hop if last else ready_frames(self.samples.end, config)
        count = total - self.frames
        if count <= 0:
            return np.zeros((0, config.features), np.float32)
        begin = first_sample(self.frames, config)
        span = np.empty(span_samples(count, config), np.float32)
        self.samples.read_into(begin, span)
        lengths = np.array([self.samples.end - begin])
        self.frames = total
        self.samples.discard_before(first_sample(total, config))
        mel: np.ndarray = self.extractor.extract_spans(span[None], lengths)[0]
        return mel
