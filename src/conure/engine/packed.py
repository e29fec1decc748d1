"""The weights of the native kernels, as `packing` wrote them: arrays in one file, which is mapped into memory.

So opening it costs nothing, and processes share it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from conure.models.config import EncoderConfig
from conure.native.library import Attention, Filter, Norm, Weight

__all__ = ["FILE", "INDEX", "Packed"]

FILE, INDEX = "stream.packed", "stream.json"


class Packed:
    """Arrays are views of the file."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError where there is none."""
        self._index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        self._file = np.memmap(folder / FILE, np.uint8, "r")

    @staticmethod
    def is_in(folder: Path) -> bool:
        return (folder / INDEX).exists()

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def array(self, name: str) -> np.ndarray:
        place = self._index[name]
        kind, shape, begin = np.dtype(place["kind"]), place["shape"], place["offset"]
        array: np.ndarray = self._file[begin : begin + math.prod(shape) * kind.itemsize].view(kind).reshape(shape)
        return array

    def weight(self, name: str) -> Weight:
        bias = self.array(f"{name}.bias") if f"{name}.bias" in self else None
        return Weight(self.array(f"{name}.values"), self.array(f"{name}.scales"), bias)

    def norm(self, name: str) -> Norm:
        weight, bias, epsilon = (self.array(f"{name}.{part}") for part in ("weight", "bias", "epsilon"))
        return Norm(weight, bias, epsilon.item())

    def attention(self, name: str, config: EncoderConfig) -> Attention:
        shift, table = (self.array(f"{name}.{part}") for part in ("shift", "table"))
        return Attention(shift, table, config.longest_past, config.longest_chunk)

    def filter(self, name: str) -> Filter:
        return Filter(self.array(f"{name}.weight"), self.array(f"{name}.bias"))
