"""Global steps of clips beside the native kernels: what they are scored by, and what they see themselves.

The kernel takes scores of few steps and mixes their values in. What is here is small: a product of some rows with all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conure.models.config import EncoderConfig
from conure.native.library import aligned

__all__ = ["GlobalSteps"]


class GlobalSteps:
    """Of clips of `counts` steps, one after another; see `models/global_attention.py`."""

    def __init__(self, counts: Sequence[int], config: EncoderConfig) -> None:
        self.heads, self.width = config.heads, config.width
        ends = np.cumsum(counts).tolist()
        self.clips = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        self.places = [
            clip.start + np.array(config.global_steps(count)) for clip, count in zip(self.clips, counts, strict=True)
        ]
        self.scores = aligned(ends[-1], self.heads, max(map(len, self.places)))
        """[N, h, G]"""

    def score(self, projected: np.ndarray, bias: np.ndarray) -> None:
        """Of each step and the global ones of its clip; `bias` [h * d] is in the queries and does not belong to it."""
        queries = self._by_head(projected[:, : self.width] - bias)
        for clip, places in zip(self.clips, self.places, strict=True):
            keys = self._by_head(projected[places, self.width : 2 * self.width])
            scores = queries[:, clip] @ keys.transpose(0, 2, 1)  # [h, T, G]
            self.scores[clip, :, : len(places)] = scores.transpose(1, 0, 2)

    def see(self, projected: np.ndarray, bias: np.ndarray, mixed: np.ndarray) -> None:
        """Writes what global steps see of their clip over what they see of their window."""
        for clip, places in zip(self.clips, self.places, strict=True):
            # Read as [h, G, d] and not turned, as NeMo has it.
            asking = (projected[places, : self.width] - bias).reshape(self.heads, len(places), -1)
            keys = self._by_head(projected[clip, self.width : 2 * self.width])
            values = self._by_head(projected[clip, 2 * self.width :])
            scores = asking @ keys.transpose(0, 2, 1)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            seen = (weights / weights.sum(-1, keepdims=True)) @ values  # [h, G, d]
            mixed[places] = seen.transpose(1, 0, 2).reshape(len(places), -1)

    def _by_head(self, x: np.ndarray) -> np.ndarray:
        """[N, D] -> [h, N, d]."""
        return x.reshape(len(x), self.heads, -1).transpose(1, 0, 2)
