"""What streams need to be subsampled chunk by chunk: the last frames of each row."""

from __future__ import annotations

import numpy as np

from conure.models.config import LEAD_FRAMES, STEP_FRAMES, EncoderConfig

__all__ = ["SubsamplingState"]

LOST = 2
"""Steps back to the first whose frames a step of the subsampling does not see."""


class SubsamplingState:
    """Fresh rows."""

    def __init__(self, config: EncoderConfig, rows: int) -> None:
        self.age = np.zeros(rows, np.int64)
        """Steps since the row's start."""
        self.frames = np.zeros((rows, _frames_of(LOST), config.features), np.float32)
        """The last mel frames, newest last."""

    @property
    def bytes(self) -> int:
        return self.frames.nbytes

    def reset(self, rows: np.ndarray) -> None:
        """Their old steps are never seen again."""
        self.age[rows] = 0

    def hear(self, row: int, mel: np.ndarray, *, keep: bool = True) -> tuple[int, np.ndarray]:
        """A row's frames [T, F] behind those before them, and how many steps these make again.

        Without `keep` the frames will come again.
        """
        lost = min(int(self.age[row]), LOST)
        before = self.frames[row, len(self.frames[row]) - _frames_of(lost) :]
        piece = np.concatenate([before, mel[LEAD_FRAMES * (lost == 0) :]])
        if keep:
            recent = piece[-self.frames.shape[1] :]
            self.frames[row, -len(recent) :] = recent
        return lost, piece

    def move_on(self, rows: np.ndarray, counts: np.ndarray) -> None:
        self.age[rows] += counts


def _frames_of(steps: int) -> int:
    """Frames up to the centre of the last of so many steps, from the centre of the first on."""
    return STEP_FRAMES * (steps - 1) + 1 if steps else 0
