"""The encoder's subsampling as a native kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import Structure, c_int64, c_void_p
from dataclasses import dataclass

import numpy as np

from conure.native.float_matmul import FloatMatrix, FloatMatrixStruct
from conure.native.library import Kernels, Weight, WeightStruct, address, library

__all__ = ["SubsamplingKernel", "Pointwise", "Span", "Stride"]


class _Pointwise(Structure):
    _fields_ = (("floats", FloatMatrixStruct), ("bytes", WeightStruct))


class _SubsamplingNet(Structure):
    _fields_ = (
        ("taps", c_void_p * 3),
        ("biases", c_void_p * 3),
        ("pointwise", _Pointwise * 2),
        *((name, c_int64) for name in ("features", "channels", "real_channels", "lead")),
    )


@dataclass(frozen=True)
class Stride:
    """A 3 x 3 convolution of stride 2, depthwise or from one channel to all: weight [9, channels], bias [channels]."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Pointwise:
    """A pointwise convolution over the channels, in float32 or int8."""

    weight: FloatMatrix | Weight

    @property
    def struct(self) -> _Pointwise:
        if isinstance(self.weight, FloatMatrix):
            return _Pointwise(self.weight.struct, WeightStruct())
        return _Pointwise(FloatMatrixStruct(None, None, self.weight.depth, self.weight.columns), self.weight.struct)


@dataclass(frozen=True)
class Span:
    """Output range of mel [T, F]: steps `first` to `first + len(out)` are written to out [steps, channels * bands]."""

    mel: np.ndarray
    first: int
    out: np.ndarray


class SubsamplingKernel:
    """Three strided convolutions, pointwise convolutions after the last two. Channels are padded to a multiple of
    COLUMNS; the first `real_channels` are written. `lead` zeros are padded before frames and bands, one after them.
    """

    def __init__(
        self, strides: Sequence[Stride], pointwise: Sequence[Pointwise], features: int, real_channels: int, lead: int
    ) -> None:
        self._parts = strides, pointwise
        taps, biases = (
            (c_void_p * 3)(*map(address, parts))
            for parts in zip(*((part.weight, part.bias) for part in strides), strict=True)
        )
        pointwise_structs = (_Pointwise * 2)(*(part.struct for part in pointwise))
        self._struct = _SubsamplingNet(
            taps, biases, pointwise_structs, features, len(strides[0].bias), real_channels, lead
        )
        self._subsample = library().conure_subsample

    def subsample(self, kernels: Kernels, spans: Sequence[Span]) -> None:
        """Computes the spans in parallel, each on one thread."""
        rows = [
            (address(span.mel), len(span.mel), span.first, len(span.out), address(span.out))
            for span in spans
            if len(span.out)
        ]
        table = np.array(rows, np.int64).reshape(-1, 5)
        self._subsample(kernels.pool, ctypes.byref(self._struct), address(table), len(table))
