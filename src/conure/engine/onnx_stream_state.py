"""What the ONNX Runtime runner remembers of live streams: pools of steps that its graph changes in place.

A row's steps are in rings, newest where `age` points. Nothing is moved when a row moves on, and a row that was
never used takes no memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from torch import Tensor

from conure.engine.export_stream import POOLS, longest_chunk, longest_past
from conure.models.config import STEP_FRAMES, EncoderConfig
from conure.models.subsampling import LEAD_FRAMES

__all__ = ["OnnxStreamMemory"]

LOST = 2
"""Steps back to the first whose frames a step of the subsampling does not see."""


class OnnxStreamMemory:
    """Fresh rows."""

    def __init__(self, config: EncoderConfig, rows: int) -> None:
        self.config, chunk = config, longest_chunk(config)
        self.past, self.reach = longest_past(config), config.kernel - 1
        self.kept, self.filtered = self.past + chunk, self.reach + chunk
        """Steps in a row's rings."""
        self.age = np.zeros(rows, np.int64)
        """Steps since the row's start."""
        self.frames = np.zeros((rows, _frames_of(LOST), config.features), np.float32)
        """The last mel frames, newest last."""
        self.silence = rows * self.filtered
        """Where there is a step that nobody writes."""
        heads = config.heads
        shapes = [(rows * heads * self.kept, config.width // heads)] * 2 + [(self.silence + 1, config.width)]
        self._arrays = {
            f"{name}.{layer}": np.zeros(shape, np.float32)
            for layer in range(config.layers)
            for name, shape in zip(POOLS, shapes, strict=True)
        }
        self.pools = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in self._arrays.items()}

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in (*self._arrays.values(), *self.frames))

    def reset(self, rows: Tensor) -> None:
        """Their old steps are never seen again."""
        self.age[rows.numpy()] = 0

    def places(self, rows: np.ndarray, counts: np.ndarray, chunk: int) -> Iterator[tuple[str, np.ndarray]]:
        """What the graph is told of `rows` [B] of which each brings `counts` [B] of a chunk's steps."""
        age, heads = self.age[rows], self.config.heads
        # Whole chunks alone are seen of the past, so that a step sees what it would see in a whole clip.
        whole = np.minimum(age, self.past // chunk * chunk)
        step = np.arange(-self.past, chunk)
        yield "seen", ((step >= -whole[:, None]) & (step < counts[:, None])).astype(np.int32)
        ring = (age[:, None] + step) % self.kept
        kept = ((rows[:, None] * heads + np.arange(heads)) * self.kept)[:, :, None] + ring[:, None]
        yield "kept", kept
        yield "to_keep", kept[:, :, self.past :].transpose(0, 2, 1).reshape(-1, 1)
        step = np.arange(-self.reach, chunk)
        place = rows[:, None] * self.filtered + (age[:, None] + step) % self.filtered
        yield "filtered", np.where(step >= -age[:, None], place, self.silence)
        yield "to_filter", place[:, self.reach :].reshape(-1, 1)

    def hear(self, row: int, mel: np.ndarray) -> tuple[int, np.ndarray]:
        """A row's frames [T, F] behind those before them, and how many steps these make again."""
        lost = min(int(self.age[row]), LOST)
        before = self.frames[row, len(self.frames[row]) - _frames_of(lost) :]
        piece = np.concatenate([before, mel[LEAD_FRAMES * (lost == 0) :]])
        recent = piece[-self.frames.shape[1] :]
        self.frames[row, -len(recent) :] = recent
        return lost, piece

    def move_on(self, rows: np.ndarray, counts: np.ndarray) -> None:
        self.age[rows] += counts


def _frames_of(steps: int) -> int:
    """Frames up to the centre of the last of so many steps, from the centre of the first on."""
    return STEP_FRAMES * (steps - 1) + 1 if steps else 0
