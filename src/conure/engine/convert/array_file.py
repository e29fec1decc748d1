"""Named arrays in one memory-mapped file: opening it reads nothing, and processes share its pages.

A JSON index next to the file has the type, shape and offset of each array.
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
"""Size of a cache line."""


class ArrayFile:
    """Opens a file of `write_arrays`; arrays are views of the mapped file."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if the file or its index does not exist."""
        self._index = json.loads(_index(path).read_text(encoding="utf-8"))
        self._file = _map_file(path)

    @staticmethod
    def exists(path: Path) -> bool:
        return _index(path).exists()

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def array(self, name: str) -> np.ndarray:
        entry = self._index[name]
        kind, shape, begin = np.dtype(entry["kind"]), entry["shape"], entry["offset"]
        array: np.ndarray = self._file[begin : begin + math.prod(shape) * kind.itemsize].view(kind).reshape(shape)
        return array


def _map_file(path: Path) -> np.memmap:
    """Maps a file once per process; a second mapping would count its pages twice as memory of the process."""
    status = path.stat()
    key = status.st_dev, status.st_ino, status.st_mtime_ns
    mapped = _MAPPED.get(key)
    if mapped is None:
        mapped = _MAPPED[key] = np.memmap(path, np.uint8, "r")
    return mapped


def write_arrays(path: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes the arrays, then the index."""
    index = {}
    with path.open("wb") as file:
        for name, value in arrays:
            array = np.ascontiguousarray(value)
            file.write(bytes(-file.tell() % ALIGNMENT))
            index[name] = {"kind": array.dtype.name, "shape": array.shape, "offset": file.tell()}
            file.write(array.data)
    _index(path).write_text(json.dumps(index), encoding="utf-8")


_MAPPED: WeakValueDictionary[tuple[int, int, int], np.memmap] = WeakValueDictionary()


def _index(path: Path) -> Path:
    return path.with_suffix(".json")
