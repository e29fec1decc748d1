"""What the ONNX Runtime runner remembers of live streams: pools of steps that its graph changes in place.

A row's steps are in rings, newest where `age` points. Nothing is moved when a row moves on, and a row that was
never used takes no memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

from conure.engine.backends.cpu.subsampling_state import SubsamplingState
from conure.engine.convert.graph_names import POOLS
from conure.models.config import EncoderConfig

__all__ = ["OnnxStreamState"]


class OnnxStreamState(SubsamplingState):
    """Fresh rows."""

    def __init__(self, config: EncoderConfig, rows: int) -> None:
        super().__init__(config, rows)
        self.config, chunk = config, config.max_chunk
        self.past, self.reach = config.max_past, config.kernel - 1
        self.kept, self.filtered = self.past + chunk, self.reach + chunk
        """Steps in a row's rings."""
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
        return super().bytes + sum(array.nbytes for array in self._arrays.values())

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
