"""Named arrays in one file, which is mapped into memory as it is: opening costs nothing and processes share it.

An index beside the file tells where each array begins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

__all__ = ["PackedArrays", "write_arrays"]

ALIGNMENT = 64
"""A line of the cache."""


class PackedArrays:
    """Opens what `write_arrays` wrote; arrays are views of the file."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where there is none."""
        self._index = json.loads(_index(path).read_text(encoding="utf-8"))
        self._file = np.memmap(path, np.uint8, "r")

    @staticmethod
    def are_in(path: Path) -> bool:
        return _index(path).exists()

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def array(self, name: str) -> np.ndarray:
        place = self._index[name]
        kind, shape, begin = np.dtype(place["kind"]), place["shape"], place["offset"]
        array: np.ndarray = self._file[begin : begin + math.prod(shape) * kind.itemsize].view(kind).reshape(shape)
        return array


def write_arrays(path: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """The file and, after it, its index."""
    index = {}
    with path.open("wb") as file:
        for name, given in arrays:
            array = np.ascontiguousarray(given)
            file.write(bytes(-file.tell() % ALIGNMENT))
            index[name] = {"kind": array.dtype.name, "shape": array.shape, "offset": file.tell()}
            file.write(array.data)
    _index(path).write_text(json.dumps(index), encoding="utf-8")


def _index(path: Path) -> Path:
    return path.with_suffix(".json")
