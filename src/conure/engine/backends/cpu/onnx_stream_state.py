"""State of streams for ONNX Runtime: pools of steps that the graph updates in place.

Each slot has rings of steps; `age` points to the newest one. Nothing is moved when a stream advances, and the operating
system allocates no memory for slots that were never used.
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
    """State of new streams."""

    def __init__(self, config: EncoderConfig, rows: int) -> None:
        super().__init__(config, rows)
        self.config, chunk = config, config.max_chunk
        self.past, self.taps = config.max_past, config.kernel - 1
        self.ring_size, self.filter_ring_size = self.past + chunk, self.taps + chunk
        """Ring sizes of a slot, in steps."""
        self.zero_step = rows * self.filter_ring_size
        """Index of a step that is always zeros."""
        heads = config.heads
        shapes = [(rows * heads * self.ring_size, config.width // heads)] * 2 + [(self.zero_step + 1, config.width)]
        self._arrays = {
            f"{name}.{layer}": np.zeros(shape, np.float32)
            for layer in range(config.layers)
            for name, shape in zip(POOLS, shapes, strict=True)
        }
        self.pools = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in self._arrays.items()}

    @property
    def bytes(self) -> int:
        return super().bytes + sum(array.nbytes for array in self._arrays.values())

    def graph_inputs(self, rows: np.ndarray, counts: np.ndarray, chunk: int) -> Iterator[tuple[str, np.ndarray]]:
        """Index inputs of the graph for slots `rows` [B] with `counts` [B] valid steps of a chunk."""
        age, heads = self.age[rows], self.config.heads
        # The visible past is a multiple of the chunk, as in the attention of a whole clip.
        visible = np.minimum(age, self.past // chunk * chunk)
        step = np.arange(-self.past, chunk)
        yield "seen", ((step >= -visible[:, None]) & (step < counts[:, None])).astype(np.int32)
        ring = (age[:, None] + step) % self.ring_size
        indices = ((rows[:, None] * heads + np.arange(heads)) * self.ring_size)[:, :, None] + ring[:, None]
        yield "kept", indices
        yield "to_keep", indices[:, :, self.past :].transpose(0, 2, 1).reshape(-1, 1)
        step = np.arange(-self.taps, chunk)
        filter_indices = rows[:, None] * self.filter_ring_size + (age[:, None] + step) % self.filter_ring_size
        yield "filtered", np.where(step >= -age[:, None], filter_indices, self.zero_step)
        yield "to_filter", filter_indices[:, self.taps :].reshape(-1, 1)
