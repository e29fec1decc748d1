"""Weights of float32 matrix products in the layout of the kernels."""

from __future__ import annotations

from ctypes import Structure, c_int64, c_void_p

import numpy as np

from conure.native.library import address, aligned

__all__ = ["COLUMNS", "FloatMatrix", "FloatMatrixStruct", "float_blocks"]

COLUMNS = 32
"""Columns of a weight in one block."""


class FloatMatrixStruct(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("values", "bias")),
        *((name, c_int64) for name in ("depth", "columns")),
    )


class FloatMatrix:
    """The right side of a float32 product: values from `float_blocks`, bias [N]."""

    def __init__(self, values: np.ndarray, bias: np.ndarray) -> None:
        self._arrays = (values, bias)
        self.columns, self.depth = len(bias), values.shape[1]
        self.struct = FloatMatrixStruct(address(values), address(bias), self.depth, self.columns)


def float_blocks(matrix: np.ndarray) -> np.ndarray:
    """A matrix [K, N] in blocks of 32 columns: [N / 32, K, 32]."""
    depth, columns = matrix.shape
    blocks = aligned(columns // COLUMNS, depth, COLUMNS)
    blocks[:] = matrix.reshape(depth, -1, COLUMNS).swapaxes(0, 1)
    return blocks
