"""State of the subsampling of streams: the last mel frames of each slot."""

from __future__ import annotations

import numpy as np

from conure.models.config import LEAD_FRAMES, STEP_FRAMES, EncoderConfig

__all__ = ["SubsamplingState"]

OVERLAP_STEPS = 2
"""Steps before a chunk whose frames the chunk's first step reads."""


class SubsamplingState:
    """State of new streams."""

    def __init__(self, config: EncoderConfig, rows: int) -> None:
        self.age = np.zeros(rows, np.int64)
        """Encoder steps since the start of each stream."""
        self.frames = np.zeros((rows, _frame_count(OVERLAP_STEPS), config.features), np.float32)
        """The last mel frames of each slot, newest last."""

    @property
    def bytes(self) -> int:
        return self.frames.nbytes

    def reset(self, rows: np.ndarray) -> None:
        """Resets slots for new streams; old steps become invisible."""
        self.age[rows] = 0

    def append_frames(self, row: int, mel: np.ndarray, *, keep: bool = True) -> tuple[int, np.ndarray]:
        """Prepends a slot's last frames to its new ones, mel [T, F] -> number of overlapping steps, and all frames.

        Without `keep` the state does not change, as for a flush.
        """
        overlap = min(int(self.age[row]), OVERLAP_STEPS)
        before = self.frames[row, len(self.frames[row]) - _frame_count(overlap) :]
        piece = np.concatenate([before, mel[LEAD_FRAMES * (overlap == 0) :]])
        if keep:
            recent = piece[-self.frames.shape[1] :]
            self.frames[row, -len(recent) :] = recent
        return overlap, piece

    def advance(self, rows: np.ndarray, counts: np.ndarray) -> None:
        self.age[rows] += counts


def _frame_count(steps: int) -> int:
    """Frames from the centre of the first of `steps` steps to the centre of the last."""
    return STEP_FRAMES * (steps - 1) + 1 if steps else 0
