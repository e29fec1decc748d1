"""Log-mel features in torch, for training and for GPUs; the results equal those of `mel`, which is for CPUs."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from conure.audio.mel import STD_GUARD, MelConfig, MelExtractor, mel_filterbank

__all__ = ["LogMel", "frame_mask"]

MAX_FFT_FRAMES = 65_536
"""Frames (11 minutes) that a GPU transforms together."""


def frame_mask(lengths: Tensor, size: int) -> Tensor:
    """Boolean [B, size], true where the position is below the row's length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


class LogMel(nn.Module):
    """samples [B, N] and lengths [B] -> mel [B, T, features] and frames [B]; padding is 0.

    A row has `length // hop` frames; T is the number of frames of N samples. Window and filterbank are buffers, so
    that a checkpoint's values replace the computed ones (some checkpoints hold rounded filterbanks).
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, config: MelConfig, window: Tensor | None = None, filterbank: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.window, periodic=False) if window is None else window)
        self.register_buffer(
            "filterbank", torch.from_numpy(mel_filterbank(config)) if filterbank is None else filterbank
        )

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        frames = torch.div(lengths, config.hop, rounding_mode="floor")
        samples = self.emphasize(samples) * frame_mask(lengths, samples.shape[1])
        mel = self.log_mel(nn.functional.pad(samples, (config.fft // 2, config.fft // 2)))
        # T follows from the shape: the longest row would require a synchronisation with the GPU.
        return self.normalize(mel[:, : max(samples.shape[1] // config.hop, 1)], frames), frames

    def emphasize(self, samples: Tensor) -> Tensor:
        """Pre-emphasis: each sample minus 0.97 of the previous one; the first is kept."""
        return torch.cat([samples[:, :1], self.emphasize_rest(samples)], 1)

    def emphasize_rest(self, samples: Tensor) -> Tensor:
        """Pre-emphasis of all samples but the first, which only serves as the previous one."""
        return samples[:, 1:] - self.config.preemphasis * samples[:, :-1]

    def log_mel(self, samples: Tensor) -> Tensor:
        """Emphasized samples [B, N] -> log-mel [B, 1 + (N - fft) // hop, features], without padding."""
        if samples.device.type != "cpu":
            return self.log_mel_reference(samples)
        return torch.from_numpy(self._cpu_extractor().log_mel(samples.numpy()))

    def log_mel_reference(self, samples: Tensor) -> Tensor:
        """Reference implementation of `log_mel`, for any device."""
        frames = samples.unfold(1, self.config.fft, self.config.hop) * self._padded()
        spectrum = torch.view_as_real(_spectra(frames))
        power = spectrum[..., 0].square().addcmul_(spectrum[..., 1], spectrum[..., 1])
        return (power @ self.filterbank.T).add_(self.config.log_guard).log_()

    def _padded(self) -> Tensor:
        """The window, centred in the FFT's samples."""
        padding = self.config.fft - self.config.window
        return nn.functional.pad(self.window, (padding // 2, padding - padding // 2))

    def _cpu_extractor(self) -> MelExtractor:
        """Created once: window and filterbank do not change."""
        if self not in _CPU_EXTRACTORS:
            window, filters = (part.float().cpu().numpy() for part in (self.window, self.filterbank))
            _CPU_EXTRACTORS[self] = MelExtractor(self.config, window, filters)
        return _CPU_EXTRACTORS[self]

    def extract_spans(self, samples: Tensor | np.ndarray, lengths: Tensor | np.ndarray) -> Tensor:
        """See `stream_features.FeatureExtractor`."""
        device = self.window.device
        emphasized = self.emphasize_rest(torch.as_tensor(samples, device=device))
        emphasized *= frame_mask(torch.as_tensor(lengths, device=device) - 1, emphasized.shape[1])
        return self.log_mel(emphasized)

    def normalize(self, mel: Tensor, frames: Tensor | np.ndarray) -> Tensor:
        """Normalises mean and deviation as in the checkpoint's training, and sets padding to zero."""
        frames = torch.as_tensor(frames, device=mel.device)
        keep = frame_mask(frames, mel.shape[1])[..., None]
        axes = {"per_feature": (1,), "all_features": (1, 2)}.get(self.config.normalize)
        if axes is None:
            return mel * keep
        count = frames[:, None, None] * (mel.shape[2] if len(axes) == 2 else 1)
        mean = (mel * keep).sum(axes, keepdim=True) / count.clamp(min=1)
        variance = ((mel - mean) * keep).square().sum(axes, keepdim=True) / (count - 1).clamp(min=1)
        return (mel - mean) / (variance.sqrt() + STD_GUARD) * keep


def _spectra(frames: Tensor) -> Tensor:
    """Frames [B, T, fft] -> their spectra [B, T, fft // 2 + 1].

    GPUs use few batch sizes: cuFFT keeps a plan, and memory, for each one.
    """
    if frames.device.type == "cpu":
        spectra: Tensor = torch.fft.rfft(frames)
        return spectra
    return _spectra_in_buckets(frames.flatten(0, 1)).view(*frames.shape[:2], -1)


def _spectra_in_buckets(frames: Tensor) -> Tensor:
    """Spectra of frames [N, fft] in batches of MAX_FFT_FRAMES; fewer frames are padded to a power of two."""
    count = len(frames)
    padded = -(-count // MAX_FFT_FRAMES) * MAX_FFT_FRAMES if count > MAX_FFT_FRAMES else 1 << (count - 1).bit_length()
    parts = torch.split(nn.functional.pad(frames, (0, 0, 0, padded - count)), MAX_FFT_FRAMES)
    return torch.cat([torch.fft.rfft(part) for part in parts])[:count]


_CPU_EXTRACTORS: WeakKeyDictionary[LogMel, MelExtractor] = WeakKeyDictionary()
