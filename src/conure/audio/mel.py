"""Log-mel features in NumPy, equal to those of NeMo.

Pre-emphasis, Hann window of 400 samples centred in an FFT of 512, hop 160, power spectrum, Slaney mel filterbank,
natural logarithm and, for most offline models, normalisation of each mel band over the clip ("per_feature").
Source: NeMo's FilterbankFeatures. `features` is the implementation for GPUs; `stream_features` computes the same
results chunk by chunk.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from conure.native.library import FFT_SIZE, Kernels, MelTables, has_native_kernels

__all__ = ["STD_GUARD", "MelConfig", "MelExtractor", "length_mask", "mel_filterbank"]

STD_GUARD = 1e-5
CACHED_SAMPLES = 65_536
"""Samples that are transformed together, so that their spectra stay in the CPU's cache."""


@dataclass(frozen=True)
class MelConfig:
    """Settings of a checkpoint's features. Lengths are in samples."""

    features: int = 80
    normalize: str = "per_feature"
    """per_feature, all_features, or NA for streaming models, for which statistics of the clip are not available."""
    sample_rate: int = 16_000
    window: int = 400
    hop: int = 160
    fft: int = 512
    preemphasis: float = 0.97
    log_guard: float = 2.0**-24


def mel_filterbank(config: MelConfig) -> np.ndarray:
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
    filters: np.ndarray = (triangles * area[:, None]).astype(np.float32)
    return filters


def length_mask(lengths: np.ndarray, size: int) -> np.ndarray:
    """Boolean [B, size], true where the position is below the row's length."""
    mask: np.ndarray = np.arange(size) < lengths[:, None]
    return mask


class MelExtractor:
    """samples [B, N] and lengths [B] -> mel [B, T, features] and frames [B]; padding is 0.

    A row has `length // hop` frames; T is the number of frames of N samples. A checkpoint's window [window] and
    filterbank [features, fft // 2 + 1] replace the computed ones (some checkpoints hold rounded filterbanks).
    """

    def __init__(
        self, config: MelConfig, window: np.ndarray | None = None, filterbank: np.ndarray | None = None
    ) -> None:
        self.config = config
        window = np.hanning(config.window).astype(np.float32) if window is None else window
        padding = config.fft - config.window
        self._window = np.pad(window, (padding // 2, padding - padding // 2))
        """Centred in the FFT's samples."""
        self._filters = mel_filterbank(config) if filterbank is None else filterbank
        is_native = has_native_kernels() and config.fft == FFT_SIZE
        self._native = MelTables(self._window, self._filters, config.hop, config.log_guard) if is_native else None

    def __call__(self, samples: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hop, half = self.config.hop, self.config.fft // 2
        frames = lengths // hop
        padded = np.zeros((len(samples), samples.shape[1] + 2 * half), np.float32)
        emphasized = padded[:, half : half + samples.shape[1]]
        emphasized[:, :1] = samples[:, :1]
        emphasized[:, 1:] = self._emphasize_rest(samples)
        emphasized *= length_mask(lengths, samples.shape[1])
        mel = self.log_mel(padded)[:, : max(samples.shape[1] // hop, 1)]
        return self.normalize(mel, frames), frames

    def extract_spans(self, samples: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """See `stream_features.FeatureExtractor`."""
        emphasized = self._emphasize_rest(samples)
        emphasized *= length_mask(lengths - 1, emphasized.shape[1])
        return self.log_mel(emphasized)

    def log_mel(self, samples: np.ndarray) -> np.ndarray:
        """Emphasized samples [B, N] -> log-mel [B, 1 + (N - fft) // hop, features], without padding."""
        if self._native is not None and samples.dtype == np.float32:
            return _kernels().log_mel(self._native, np.ascontiguousarray(samples))
        rows = max(CACHED_SAMPLES // samples.shape[1], 1)
        parts = range(0, len(samples), rows)
        return np.concatenate([self.log_mel_reference(samples[begin : begin + rows]) for begin in parts])

    def log_mel_reference(self, samples: np.ndarray) -> np.ndarray:
        """Reference implementation of `log_mel`, without native kernels."""
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.config.fft, axis=1)
        spectrum = np.fft.rfft(windows[:, :: self.config.hop] * self._window)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        mel: np.ndarray = np.log(power @ self._filters.T + self.config.log_guard)
        return mel.astype(samples.dtype, copy=False)

    def normalize(self, mel: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Normalises mean and deviation as in the checkpoint's training, and sets padding to zero."""
        keep = length_mask(frames, mel.shape[1])[..., None]
        axes = {"per_feature": (1,), "all_features": (1, 2)}.get(self.config.normalize)
        if axes is None:
            kept: np.ndarray = mel * keep
            return kept
        count = frames[:, None, None] * (mel.shape[2] if len(axes) == 2 else 1)
        # float64, because NumPy adds frame by frame: over minutes of audio float32 would lose precision.
        mean = (mel * keep).sum(axes, np.float64, keepdims=True) / np.maximum(count, 1)
        normal: np.ndarray = (mel - mean.astype(np.float32)) * keep
        variance = np.square(normal).sum(axes, np.float64, keepdims=True) / np.maximum(count - 1, 1)
        normal /= (np.sqrt(variance) + STD_GUARD).astype(np.float32)
        return normal

    def _emphasize_rest(self, samples: np.ndarray) -> np.ndarray:
        """Pre-emphasis of all samples but the first: each minus 0.97 of the previous one."""
        rest: np.ndarray = samples[:, 1:] - np.float32(self.config.preemphasis) * samples[:, :-1]
        return rest


@functools.cache
def _kernels() -> Kernels:
    """Kernels for the calling thread only: a chunk is too short for several."""
    return Kernels(1)
