"""The subsampling before an encoder as a kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import Structure, c_int64, c_void_p
from dataclasses import dataclass

import numpy as np

from conure.native.float_matmul import FloatMatrix, FloatMatrixStruct
from conure.native.library import Kernels, Weight, WeightStruct, address, library

__all__ = ["SubsamplingKernel", "Mix", "Span", "Stride"]


class _Mix(Structure):
    _fields_ = (("floats", FloatMatrixStruct), ("bytes", WeightStruct))


class _Front(Structure):
    _fields_ = (
        ("taps", c_void_p * 3),
        ("biases", c_void_p * 3),
        ("mixes", _Mix * 2),
        *((name, c_int64) for name in ("features", "channels", "kept", "lead")),
    )


@dataclass(frozen=True)
class Stride:
    """A convolution of stride 2 of each channel, or of one to all: weight [9, channels], bias [channels]."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Mix:
    """All channels of a position from all channels: in float32, or of rows rounded to bytes."""

    by: FloatMatrix | Weight

    @property
    def struct(self) -> _Mix:
        if isinstance(self.by, FloatMatrix):
            return _Mix(self.by.struct, WeightStruct())
        return _Mix(FloatMatrixStruct(None, None, self.by.depth, self.by.columns), self.by.struct)


@dataclass(frozen=True)
class Span:
    """Steps `first` to `first + len(out)` of what mel [T, F] gives, into out [steps, channels * bands]."""

    mel: np.ndarray
    first: int
    out: np.ndarray


class SubsamplingKernel:
    """Three strides, mixes after the last two. Channels are a multiple of COLUMNS, the first `kept` are written.

    There are `lead` zeros before frames and bands, and one after them.
    """

    def __init__(self, strides: Sequence[Stride], mixes: Sequence[Mix], features: int, kept: int, lead: int) -> None:
        self._parts = strides, mixes
        taps, biases = (
            (c_void_p * 3)(*map(address, parts))
            for parts in zip(*((part.weight, part.bias) for part in strides), strict=True)
        )
        mixed = (_Mix * 2)(*(part.struct for part in mixes))
        self._struct = _Front(taps, biases, mixed, features, len(strides[0].bias), kept, lead)
        self._subsample = library().conure_front

    def subsample(self, kernels: Kernels, spans: Sequence[Span]) -> None:
        """Each on one thread."""
        told = [
            (address(span.mel), len(span.mel), span.first, len(span.out), address(span.out))
            for span in spans
            if len(span.out)
        ]
        given = np.array(told, np.int64).reshape(-1, 5)
        self._subsample(kernels.pool, ctypes.byref(self._struct), address(given), len(given))
