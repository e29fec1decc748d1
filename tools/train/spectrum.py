"""Augmentation of log-mel features [B, T, F]: vocal-tract length and masking, with a given random generator."""

import numpy as np
import torch
from torch import Tensor


def warp(mel: Tensor, rng: np.random.Generator, amount: float = 0.12) -> Tensor:
    """Stretch each row's mel axis by up to `amount`: other formants at the same pitch.

    A linear interpolation along frequency, written as one [F, F] matrix per row.
    """
    bands = mel.shape[2]
    factors = torch.from_numpy(rng.uniform(1 - amount, 1 + amount, mel.shape[0]).astype(np.float32))
    source = (torch.arange(bands) * factors[:, None]).clamp(max=bands - 1)  # [B, F] where band f comes from
    distance = (torch.arange(bands)[None, :, None] - source[:, None, :]).abs()
    matrix = (1 - distance).clamp(min=0).to(mel)
    return mel @ matrix


def mask(mel: Tensor, frames: Tensor, rng: np.random.Generator) -> Tensor:
    """SpecAugment: two bands of up to 14 mels and short stretches of time set to zero (the mean)."""
    keep = np.ones((*mel.shape[:2], 1), np.float32)
    bands = np.ones((mel.shape[0], 1, mel.shape[2]), np.float32)
    for row, count in enumerate(frames.tolist()):
        for _ in range(2):
            width = int(rng.integers(0, 14))
            start = int(rng.integers(0, mel.shape[2] - width))
            bands[row, :, start : start + width] = 0
        for _ in range(max(1, count // 150)):
            width = int(rng.integers(0, 16))
            start = int(rng.integers(0, max(1, count - width)))
            keep[row, start : start + width] = 0
    return mel * torch.from_numpy(keep).to(mel) * torch.from_numpy(bands).to(mel)
