"""The convolutional subsampling of FastConformer: 8 mel frames (80 ms) become one encoder step.

Three convolutions of stride 2 over time and frequency, the last two depthwise-separable. Offline models
pad (1, 1); causal ones pad (2, 1), so that a step sees no frame after its own. Source: Rekesh et al.,
"Fast Conformer with Linearly Scalable Attention" (2023), and NeMo's ConvSubsampling ("dw_striding").
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conure.audio.features import frame_mask
from conure.models.config import LEAD_FRAMES, STEP_FRAMES, EncoderConfig

__all__ = ["Subsampling"]

Frames = TypeVar("Frames", int, Tensor)
"""Number of mel frames, of one clip or of each row [B]."""


class Subsampling(nn.Module):
    """mel [B, T, F] -> steps [B, S, D]."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.causal = config.causal_subsampling
        self.channels = config.channels
        self.widths = _stage_widths(config)
        channels = config.channels
        # Indices as in NeMo: 0, 2, 5 stride over time; 3, 6 mix channels; 1, 4, 7 are the ReLUs.
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, 2), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Conv2d(channels, channels, 3, 2, groups=channels)]
            layers += [nn.Conv2d(channels, channels, 1), nn.ReLU()]
        self.conv = nn.ModuleList(layers)
        self.out = nn.Linear(channels * self.widths[-1], config.width)

    def _stages(self) -> tuple[tuple[nn.Module, nn.Module | None], ...]:
        return ((self.conv[0], None), (self.conv[2], self.conv[3]), (self.conv[5], self.conv[6]))

    def out_steps(self, frames: Frames) -> Frames:
        """Number of encoder steps for `frames` mel frames, row by row."""
        for _ in range(3):
            frames = (frames - (0 if self.causal else 1)) // 2 + 1
        return frames

    def forward(self, mel: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Whole clips: mel [B, T, F], frames [B] -> steps [B, S, D], counts [B]."""
        x = mel[:, None] * frame_mask(frames, mel.shape[1])[:, None, :, None]
        padding = (2, 1, 2, 1) if self.causal else (1, 1, 1, 1)
        for stride, mix in self._stages():
            x = stride(F.pad(x, padding))
            frames = torch.div(frames + (0 if self.causal else -1), 2, rounding_mode="floor") + 1
            keep = frame_mask(frames, x.shape[2])[:, None, :, None]
            if mix is not None:
                x = mix(x * keep)
            x = F.relu(x * keep)
        return self._project(x), frames

    def in_chunks(self, mel: Tensor, frames: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """The results of `forward`, computed `steps` encoder steps at a time to save memory: the convolutions'
        activations are 32 times the size of the mel.

        A chunk is extended by one step to its left; that step's output lacks the past and is dropped.
        """
        counts = self.out_steps(frames)
        if self.causal:
            return self._causal_chunks(mel, frames, steps), counts
        pieces = []
        for start in range(0, -(-mel.shape[1] // STEP_FRAMES), steps):
            halo = min(start, 1)
            begin, end = (start - halo) * STEP_FRAMES, (start + steps) * STEP_FRAMES
            part, _ = self(mel[:, begin:end], (frames - begin).clamp(min=0))
            pieces.append(part[:, halo:])
        return torch.cat(pieces, 1), counts

    def _causal_chunks(self, mel: Tensor, frames: Tensor, steps: int) -> Tensor:
        caches = self.empty_caches(mel.shape[0], mel)
        total = self.out_steps(mel.shape[1])
        mel = F.pad(mel, (0, 0, LEAD_FRAMES, total * STEP_FRAMES - mel.shape[1]))
        fresh = torch.ones(mel.shape[0], dtype=torch.bool, device=mel.device)
        pieces = []
        for begin in range(0, total * STEP_FRAMES, steps * STEP_FRAMES):
            chunk = mel[:, begin : begin + steps * STEP_FRAMES]
            chunk_frames = (frames + LEAD_FRAMES - begin).clamp(min=0, max=chunk.shape[1])
            part, _, caches = self.step(chunk, chunk_frames, fresh, caches)
            fresh = torch.zeros_like(fresh)
            pieces.append(part)
        return torch.cat(pieces, 1)

    def empty_caches(self, rows: int, like: Tensor) -> tuple[Tensor, ...]:
        """The frame before the chunk at each of the three convolutions: [B, channels, 1, width]."""
        shapes = ((1, self.widths[0]), (self.channels, self.widths[1]), (self.channels, self.widths[2]))
        return tuple(like.new_zeros(rows, channels, 1, width) for channels, width in shapes)

    def step(
        self, mel: Tensor, frames: Tensor, fresh: Tensor, caches: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """One chunk of causal streams of any age: mel [B, 8C, F] -> steps [B, C, D], counts [B], caches.

        `frames` counts valid frames from index 0; the frames of a fresh row begin at LEAD_FRAMES and the
        virtual ones before them count as valid. Those are zeroed at every convolution (7, 3 and 1 of them),
        which equals the zero padding of a whole clip. A row without frames has no steps.
        """
        x, lead, kept = mel[:, None], LEAD_FRAMES, []
        for (stride, mix), cache in zip(self._stages(), caches, strict=True):
            position = torch.arange(x.shape[2], device=x.device)
            keep = (position >= fresh[:, None] * lead) & (position < frames[:, None])
            x = x * keep[:, None, :, None]
            kept.append(x[:, :, -1:])
            cache = cache * ~fresh[:, None, None, None]
            x = stride(F.pad(torch.cat([cache, x], 2), (2, 1, 0, 0)))
            lead = (lead - 1) // 2
            frames = torch.div(frames + 1, 2, rounding_mode="floor")
            if mix is not None:
                x = mix(x)
            x = F.relu(x)
        return self._project(x), frames, tuple(kept)

    def _project(self, x: Tensor) -> Tensor:
        steps: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return steps


def _stage_widths(config: EncoderConfig) -> tuple[int, int, int, int]:
    """Frequency bands before each convolution and after the last."""
    widths = [config.features]
    for _ in range(3):
        widths.append((widths[-1] + (3 if config.causal_subsampling else 2) - 3) // 2 + 1)
    return widths[0], widths[1], widths[2], widths[3]
