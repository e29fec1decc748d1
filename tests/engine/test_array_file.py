"""Array files: arrays survive a round trip, and readers share the mapped pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conure.engine.convert.array_file import ArrayFile, write_arrays

ARRAYS = {"bytes": np.arange(5, dtype=np.int8), "halves": np.ones((2, 3), np.float16), "none": np.zeros((0, 4))}


def test_round_trip(tmp_path: Path) -> None:
    write_arrays(tmp_path / "some.packed", ARRAYS.items())
    assert ArrayFile.exists(tmp_path / "some.packed")
    packed = ArrayFile(tmp_path / "some.packed")
    for name, array in ARRAYS.items():
        assert name in packed
        got = packed.array(name)
        assert (got.dtype, got.shape) == (array.dtype, array.shape)
        assert np.array_equal(got, array)
        assert got.size == 0 or got.ctypes.data % 64 == 0
    assert "others" not in packed


def test_a_file_is_mapped_once(tmp_path: Path) -> None:
    path = tmp_path / "some.packed"
    write_arrays(path, ARRAYS.items())
    first, second = ArrayFile(path), ArrayFile(path)
    assert np.shares_memory(first.array("bytes"), second.array("bytes"))


def test_a_replaced_file_is_mapped_again(tmp_path: Path) -> None:
    path, new = tmp_path / "some.packed", tmp_path / "new.packed"
    write_arrays(path, ARRAYS.items())
    before = ArrayFile(path)
    write_arrays(new, [("bytes", np.arange(7, 12, dtype=np.int8))])
    for suffix in (".packed", ".json"):
        new.with_suffix(suffix).replace(path.with_suffix(suffix))
    assert ArrayFile(path).array("bytes").tolist() == [7, 8, 9, 10, 11]
    assert before.array("bytes").tolist() == [0, 1, 2, 3, 4]


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    assert not ArrayFile.exists(tmp_path / "some.packed")
    with pytest.raises(OSError, match="some"):
        ArrayFile(tmp_path / "some.packed")
