"""Log-mel of parts of streams: the numbers `features` makes of the whole, with constant memory.

Mel frame i is centred on sample 160 i and its window reaches 200 samples to either side, so a frame is
ready when the 200 samples after its centre are there; at the end zeros stand for what is missing. The
statistics of a clip cannot be known before its end: normalisation is left to the caller.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from conure.audio.backlog import Backlog
from conure.audio.features import LogMel, MelConfig, frame_mask

__all__ = ["MelStream", "first_sample", "mel_of_spans", "ready_frames", "samples_of", "span_samples"]


def first_sample(frame: int, config: MelConfig) -> int:
    """Where the samples of a frame begin: half an FFT before its centre, and the one that emphasis needs."""
    return frame * config.hop - config.fft // 2 - 1


def span_samples(frames: int, config: MelConfig) -> int:
    """Samples that so many frames are made of."""
    return 1 + config.fft + (frames - 1) * config.hop


def ready_frames(samples: int, config: MelConfig) -> int:
    """Frames of a stream whose every sample under the window is there."""
    return max(0, (samples - config.window // 2) // config.hop + 1)


def samples_of(frames: int, config: MelConfig) -> int:
    """Samples of a stream from which on it has so many frames, which is at least one."""
    return (frames - 1) * config.hop + config.window // 2


def mel_of_spans(front: LogMel, samples: Tensor, known: Tensor) -> Tensor:
    """Samples [B, N] from `first_sample` on, of which `known` [B] are real -> [B, T, features], not normalised.

    Frames are independent of one another, so rows may be anywhere in their streams. Zeros stand for what is
    before a stream's start; emphasis must not see its end, which is why `known` is told.
    """
    emphasized = front.emphasize_rest(samples)
    emphasized *= frame_mask(known - 1, emphasized.shape[1])
    return front.log_mel(emphasized)


class MelStream:
    """One stream of samples. Not normalised: for models trained so ("NA") these are the final features."""

    def __init__(self, front: LogMel) -> None:
        self.front = front
        self.samples = Backlog()
        self.frames = 0

    def push(self, samples: Tensor, last: bool = False) -> Tensor:
        """samples [N] -> the mel frames that have become complete, [T, features]."""
        config = self.front.config
        self.samples.push(samples.numpy())
        total = self.samples.end // config.hop if last else ready_frames(self.samples.end, config)
        count = total - self.frames
        if count <= 0:
            return self.front.window.new_zeros(0, config.features)
        begin = first_sample(self.frames, config)
        span = np.empty(span_samples(count, config), np.float32)
        self.samples.read(begin, span)
        known = torch.tensor([self.samples.end - begin])
        self.frames = total
        self.samples.forget(first_sample(total, config))
        return mel_of_spans(self.front, torch.from_numpy(span)[None], known)[0]
