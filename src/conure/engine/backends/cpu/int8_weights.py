"""Reads the int8 encoder weights that `convert/pack_encoder.py` has written for the native kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conure.engine.backends.positions import projected_distances
from conure.engine.convert.array_file import ArrayFile
from conure.engine.convert.graph_names import REACH
from conure.engine.convert.saturation import LEVELS
from conure.models.config import EncoderConfig
from conure.native.library import Attention, Distances, Filter, Norm, Weight, pack

__all__ = ["INT8_ENCODER_FILE", "Int8Weights", "packed_distances"]

INT8_ENCODER_FILE = "encoder.packed"
MIN_MAGNITUDE = 1e-20
"""Lower bound of a scale, for distances whose projection is zero."""


class Int8Weights(ArrayFile):
    def __init__(self, folder: Path) -> None:
        """Raises OSError if the file does not exist."""
        super().__init__(folder / INT8_ENCODER_FILE)

    @staticmethod
    def exists_in(folder: Path) -> bool:
        return ArrayFile.exists(folder / INT8_ENCODER_FILE)

    def weight(self, name: str) -> Weight:
        bias = self.array(f"{name}.bias") if f"{name}.bias" in self else None
        return Weight(self.array(f"{name}.values"), self.array(f"{name}.scales"), bias)

    def norm(self, name: str) -> Norm:
        weight, bias, epsilon = (self.array(f"{name}.{part}") for part in ("weight", "bias", "epsilon"))
        return Norm(weight, bias, epsilon.item())

    def attention(self, name: str, config: EncoderConfig) -> Attention:
        shift, table = (self.array(f"{name}.{part}") for part in ("shift", "table"))
        return Attention(shift, table, config.max_past, config.max_chunk)

    def distances(self, name: str, heads: int, steps: int) -> Distances:
        """Projected distances for clips of up to `steps` steps; up to REACH they are read from the file."""
        shift = self.array(f"{name}.shift")
        if steps <= REACH:
            return Distances(self.array(f"{name}.distances"), self.array(f"{name}.distances.scales"), shift)
        weight = self.array(f"{name}.position").astype(np.float32)
        return Distances(*packed_distances(weight, heads, 1 << (steps - 1).bit_length()), shift)

    def filter(self, name: str) -> Filter:
        return Filter(self.array(f"{name}.weight"), self.array(f"{name}.bias"))


def packed_distances(weight: np.ndarray, heads: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances reach, ..., 1 - reach projected by a layer's weight [D, D]: packed by head, and scales [h, 2 *
    reach]."""
    table = projected_distances(weight, heads, reach, 1 - reach)
    scales = np.maximum(np.abs(table).max(1), MIN_MAGNITUDE) / LEVELS
    rounded = np.rint(table / scales[:, None]).astype(np.int8)
    return np.stack([pack(head.T) for head in rounded]), scales.astype(np.float32)
