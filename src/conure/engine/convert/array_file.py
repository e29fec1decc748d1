"""Named arrays in one file, which is mapped into memory as it is: opening costs nothing and processes share it.

An index beside the file tells where each array begins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

__all__ = ["ArrayFile", "write_arrays"]

ALIGNMENT = 64
"""A line of the cache."""


class ArrayFile:
    """Opens what `write_arrays` wrote; arrays are views of the file."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where there is none."""
        self._index = json.loads(_index(path).read_text(encoding="utf-8"))
        self._file = _mapped(path)

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


def _mapped(path: Path) -> np.memmap:
    """One mapping for all who read a file: each would count its pages as memory of the process."""
    status = path.stat()
    file = status.st_dev, status.st_ino, status.st_mtime_ns
    mapped = _MAPPED.get(file)
    if mapped is None:
        mapped = _MAPPED[file] = np.memmap(path, np.uint8, "r")
    return mapped


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


_MAPPED: WeakValueDictionary[tuple[int, int, int], np.memmap] = WeakValueDictionary()


def _index(path: Path) -> Path:
    return path.with_suffix(".json")
