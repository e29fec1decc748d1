"""Log-mel features in torch, for training and for devices: the numbers of `mel`, which computes them on a CPU."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from conure.audio.mel import STD_GUARD, MelConfig, MelExtractor, mel_filterbank

__all__ = ["LogMel", "frame_mask"]

FFT_FRAMES = 65_536
"""Frames (11 minutes) that a device transforms together."""


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
        self.register_buffer("window", torch.hann_window(config.window, periodic=False) if window is None else window)
        self.register_buffer(
            "filterbank", torch.from_numpy(mel_filterbank(config)) if filterbank is None else filterbank
        )

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
            return self.log_mel_reference(samples)
        return torch.from_numpy(self._on_host().log_mel(samples.numpy()))

    def log_mel_reference(self, samples: Tensor) -> Tensor:
        """The same on any device."""
        frames = samples.unfold(1, self.config.fft, self.config.hop) * self._padded()
        spectrum = torch.view_as_real(_transformed(frames))
        power = spectrum[..., 0].square().addcmul_(spectrum[..., 1], spectrum[..., 1])
        return (power @ self.filterbank.T).add_(self.config.log_guard).log_()

    def _padded(self) -> Tensor:
        """The window in the middle of the FFT's samples."""
        room = self.config.fft - self.config.window
        return nn.functional.pad(self.window, (room // 2, room - room // 2))

    def _on_host(self) -> MelExtractor:
        """Made once: window and filterbank do not change."""
        if self not in _ON_HOST:
            window, filters = (part.float().cpu().numpy() for part in (self.window, self.filterbank))
            _ON_HOST[self] = MelExtractor(self.config, window, filters)
        return _ON_HOST[self]

    def extract_spans(self, samples: Tensor | np.ndarray, known: Tensor | np.ndarray) -> Tensor:
        """As `features_stream.Front` has it."""
        device = self.window.device
        emphasized = self.emphasize_rest(torch.as_tensor(samples, device=device))
        emphasized *= frame_mask(torch.as_tensor(known, device=device) - 1, emphasized.shape[1])
        return self.log_mel(emphasized)

    def normalize(self, mel: Tensor, frames: Tensor | np.ndarray) -> Tensor:
        """Takes mean and deviation out as the checkpoint was trained, and zeroes the padding."""
        frames = torch.as_tensor(frames, device=mel.device)
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


_ON_HOST: WeakKeyDictionary[LogMel, MelExtractor] = WeakKeyDictionary()
