"""Log-mel chunk by chunk: the numbers `features` makes of the whole, with constant memory.

Mel frame i is centred on sample 160 i and its window reaches 200 samples to either side, so a frame is
ready when the 200 samples after its centre are there; at the end zeros stand for what is missing. The
statistics of a clip cannot be known before its end: normalisation is left to the caller.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conure.audio.features import LogMel

__all__ = ["MelStream"]


class MelStream:
    """One stream of samples. Not normalised: for models trained so ("NA") these are the final features."""

    def __init__(self, front: LogMel) -> None:
        self.front = front
        self.half = front.config.fft // 2
        # The FFT of frame 0 begins half a window before sample 0, over zeros.
        self.emphasized = front.window.new_zeros(self.half)
        self.last = front.window.new_zeros(0)
        self.samples = 0
        self.frames = 0

    def push(self, samples: Tensor, last: bool = False) -> Tensor:
        """samples [N] -> the mel frames that have become complete, [T, features]."""
        config = self.front.config
        emphasized = self.front.emphasize(torch.cat([self.last, samples])[None])[0, len(self.last) :]
        self.last = samples[-1:].clone() if len(samples) else self.last
        self.samples += len(samples)
        self.emphasized = torch.cat([self.emphasized, emphasized])
        if last:
            self.emphasized = torch.cat([self.emphasized, self.emphasized.new_zeros(self.half)])
        ready = self._ready(last)
        if ready == 0:
            return self.emphasized.new_zeros(0, config.features)
        span = (ready - 1) * config.hop + config.fft
        mel = self.front.log_mel(self._padded(span)[None])[0]
        self.emphasized = self.emphasized[ready * config.hop :]
        self.frames += ready
        return mel

    def _ready(self, last: bool) -> int:
        """Frames whose every sample under the window is there; at the end, all that the samples make."""
        config = self.front.config
        if last:
            return self.samples // config.hop - self.frames
        reach = (config.fft + config.window) // 2
        return max(0, (len(self.emphasized) - reach) // config.hop + 1)

    def _padded(self, span: int) -> Tensor:
        """The FFT is longer than the window: what lies behind its last window is multiplied by zero."""
        missing = max(0, span - len(self.emphasized))
        return torch.nn.functional.pad(self.emphasized, (0, missing))[:span]
