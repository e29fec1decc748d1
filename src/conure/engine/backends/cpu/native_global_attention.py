"""Global steps of clips in NumPy, in addition to the native kernels: their scores as keys, and their own attention.

The kernel reads these scores and adds the values of global steps. The work here is small: products of few rows with
all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conure.models.config import EncoderConfig
from conure.native.library import aligned

__all__ = ["GlobalSteps"]


class GlobalSteps:
    """Global steps of concatenated clips of `counts` steps; see `models/global_attention.py`."""

    def __init__(self, counts: Sequence[int], config: EncoderConfig) -> None:
        self.heads, self.width = config.heads, config.width
        ends = np.cumsum(counts).tolist()
        self.clips = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        self.rows = [
            clip.start + np.array(config.global_steps(count)) for clip, count in zip(self.clips, counts, strict=True)
        ]
        self.scores = aligned(ends[-1], self.heads, max(map(len, self.rows)))
        """[N, h, G]"""

    def compute_scores(self, projected: np.ndarray, bias: np.ndarray) -> None:
        """Scores of each step and the global steps of its clip, without the content bias [h * d] that is in the
        queries."""
        queries = self._by_head(projected[:, : self.width] - bias)
        for clip, rows in zip(self.clips, self.rows, strict=True):
            keys = self._by_head(projected[rows, self.width : 2 * self.width])
            scores = queries[:, clip] @ keys.transpose(0, 2, 1)  # [h, T, G]
            self.scores[clip, :, : len(rows)] = scores.transpose(1, 0, 2)

    def attend(self, projected: np.ndarray, bias: np.ndarray, mixed: np.ndarray) -> None:
        """Replaces the windowed output of global steps by their attention to the whole clip."""
        for clip, rows in zip(self.clips, self.rows, strict=True):
            # Reshaped to [h, G, d] without a transpose, as in NeMo.
            queries = (projected[rows, : self.width] - bias).reshape(self.heads, len(rows), -1)
            keys = self._by_head(projected[clip, self.width : 2 * self.width])
            values = self._by_head(projected[clip, 2 * self.width :])
            scores = queries @ keys.transpose(0, 2, 1)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            attended = (weights / weights.sum(-1, keepdims=True)) @ values  # [h, G, d]
            mixed[rows] = attended.transpose(1, 0, 2).reshape(len(rows), -1)

    def _by_head(self, x: np.ndarray) -> np.ndarray:
        """[N, D] -> [h, N, d]."""
        return x.reshape(len(x), self.heads, -1).transpose(1, 0, 2)
