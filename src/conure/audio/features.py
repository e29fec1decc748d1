"""Log-mel features of whole clips: the numbers NeMo's front-end makes.

Pre-emphasis, Hann window of 400 samples centred in an FFT of 512, hop 160, power spectrum, Slaney mel
filterbank, natural logarithm, and for most offline models mean and deviation of each mel band over the
clip taken out ("per_feature"). Source: NeMo's FilterbankFeatures; `features_stream` makes the same
numbers chunk by chunk.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from conure.native.library import FFT, Kernels, Mel, available

__all__ = ["LogMel", "MelConfig", "frame_mask", "hann_window", "mel_filterbank"]

STD_GUARD = 1e-5
CACHED_SAMPLES = 65_536
"""Whose spectra stay in a processor's cache."""
FFT_FRAMES = 65_536
"""Frames (11 minutes) that a device transforms together."""


@dataclass(frozen=True)
class MelConfig:
    """The front-end of a checkpoint. Lengths are in samples."""

    features: int = 80
    normalize: str = "per_feature"
    """per_feature, all_features, or NA for streaming models, whose statistics cannot be known in advance."""
    sample_rate: int = 16_000
    window: int = 400
    hop: int = 160
    fft: int = 512
    preemphasis: float = 0.97
    log_guard: float = 2.0**-24


def hann_window(length: int) -> Tensor:
    """Symmetric Hann window [length]."""
    return torch.hann_window(length, periodic=False)


def mel_filterbank(config: MelConfig) -> Tensor:
    """Slaney mel filterbank with area normalisation, [features, fft // 2 + 1].

    Source: M. Slaney, Auditory Toolbox (1998): linear below 1 kHz, logarithmic above.
    """
    step, knee, ratio = 200.0 / 3, 1000.0, math.log(6.4) / 27.0

    def to_hertz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < knee / step, mel * step, knee * np.exp(ratio * (mel - knee / step)))

    nyquist = config.sample_rate / 2
    top = knee / step + math.log(nyquist / knee) / ratio
    edges = to_hertz(np.linspace(0.0, top, config.features + 2))
    bins = np.linspace(0.0, nyquist, config.fft // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    area = 2.0 / (edges[2:] - edges[:-2])
    return torch.from_numpy((triangles * area[:, None]).astype(np.float32))


def frame_mask(lengths: Tensor, size: int) -> Tensor:
    """Boolean [B, size], true where the position is below the row's length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


class LogMel(nn.Module):
    """samples [B, N] and lengths [B] -> mel [B, T, features] and frames [B]; padding is 0.

    A row has `length // hop` frames, T those of N samples. Window and filterbank are buffers, so that a checkpoint's
    own values replace the computed ones (some checkpoints hold rounded filterbanks).
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, config: MelConfig, window: Tensor | None = None, filterbank: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", hann_window(config.window) if window is None else window)
        self.register_buffer("filterbank", mel_filterbank(config) if filterbank is None else filterbank)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        frames = torch.div(lengths, config.hop, rounding_mode="floor")
        samples = self.emphasize(samples) * frame_mask(lengths, samples.shape[1])
        mel = self.log_mel(nn.functional.pad(samples, (config.fft // 2, config.fft // 2)))
        # By the shape, not by the longest row: what lengths hold on a device would have to be waited for.
        return self.normalize(mel[:, : max(samples.shape[1] // config.hop, 1)], frames), frames

    def emphasize(self, samples: Tensor) -> Tensor:
        """Each sample less 0.97 of the one before it; the first is kept."""
        return torch.cat([samples[:, :1], self.emphasize_rest(samples)], 1)

    def emphasize_rest(self, samples: Tensor) -> Tensor:
        """All but the first, which are known to have one before them."""
        return samples[:, 1:] - self.config.preemphasis * samples[:, :-1]

    def log_mel(self, samples: Tensor) -> Tensor:
        """Emphasized samples [B, N] -> log-mel [B, 1 + (N - fft) // hop, features], without padding."""
        if samples.device.type != "cpu":
            return self.plain_log_mel(samples)
        if available() and self.config.fft == FFT and samples.dtype == torch.float32:
            return torch.from_numpy(_kernels().log_mel(self._native(), samples.contiguous().numpy()))
        rows = max(CACHED_SAMPLES // samples.shape[1], 1)
        return torch.cat([self.plain_log_mel(part) for part in torch.split(samples, rows)])

    def plain_log_mel(self, samples: Tensor) -> Tensor:
        """The same on any device."""
        frames = samples.unfold(1, self.config.fft, self.config.hop) * self._padded()
        spectrum = torch.view_as_real(_transformed(frames))
        power = spectrum[..., 0].square().addcmul_(spectrum[..., 1], spectrum[..., 1])
        return (power @ self.filterbank.T).add_(self.config.log_guard).log_()

    def _padded(self) -> Tensor:
        """The window in the middle of the FFT's samples."""
        room = self.config.fft - self.config.window
        return nn.functional.pad(self.window, (room // 2, room - room // 2))

    def _native(self) -> Mel:
        """Made once: window and filterbank do not change."""
        if self not in _NATIVE:
            window, filters = (part.float().cpu().numpy() for part in (self._padded(), self.filterbank))
            _NATIVE[self] = Mel(window, filters, self.config.hop, self.config.log_guard)
        return _NATIVE[self]

    def normalize(self, mel: Tensor, frames: Tensor) -> Tensor:
        """Takes mean and deviation out as the checkpoint was trained, and zeroes the padding."""
        keep = frame_mask(frames, mel.shape[1])[..., None]
        axes = {"per_feature": (1,), "all_features": (1, 2)}.get(self.config.normalize)
        if axes is None:
            return mel * keep
        count = frames[:, None, None] * (mel.shape[2] if len(axes) == 2 else 1)
        mean = (mel * keep).sum(axes, keepdim=True) / count.clamp(min=1)
        variance = ((mel - mean) * keep).square().sum(axes, keepdim=True) / (count - 1).clamp(min=1)
        return (mel - mean) / (variance.sqrt() + STD_GUARD) * keep


def _transformed(frames: Tensor) -> Tensor:
    """Frames [B, T, fft] -> their spectra [B, T, fft // 2 + 1].

    On a device in numbers of frames that are few: cuFFT keeps a plan, and memory, for each that it ever saw.
    """
    if frames.device.type == "cpu":
        spectra: Tensor = torch.fft.rfft(frames)
        return spectra
    return _by_sizes(frames.flatten(0, 1)).view(*frames.shape[:2], -1)


def _by_sizes(frames: Tensor) -> Tensor:
    """Frames [N, fft] in parts of FFT_FRAMES, and the rest of them filled up to a power of two."""
    count = len(frames)
    room = -(-count // FFT_FRAMES) * FFT_FRAMES if count > FFT_FRAMES else 1 << (count - 1).bit_length()
    parts = torch.split(nn.functional.pad(frames, (0, 0, 0, room - count)), FFT_FRAMES)
    return torch.cat([torch.fft.rfft(part) for part in parts])[:count]


_NATIVE: WeakKeyDictionary[LogMel, Mel] = WeakKeyDictionary()


@functools.cache
def _kernels() -> Kernels:
    """On the thread that calls: a chunk is too little for two."""
    return Kernels(1)
