"""The Silero speech detector as a native kernel; it runs on the calling thread."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import Structure, c_float, c_void_p

import numpy as np

from conure.native.float_matmul import FloatMatrix, FloatMatrixStruct, float_blocks
from conure.native.library import SIMD_LANES, address, aligned, library

__all__ = ["SileroKernel"]

STEP, FRAME = 512, 256

SUMS = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
"""Winograd transform of a convolution's three taps; the kernel multiplies summed frames by it."""


class _Silero(Structure):
    _fields_ = (
        ("window", c_void_p),
        ("first", FloatMatrixStruct),
        ("first_bias", c_void_p),
        ("convolutions", FloatMatrixStruct * 3),
        ("input", FloatMatrixStruct),
        ("output", FloatMatrixStruct),
        ("head", c_void_p),
        ("head_bias", c_float),
    )


class SileroKernel:
    """The network's weights in float32 and the kernel that runs it."""

    def __init__(
        self,
        convolutions: Sequence[tuple[np.ndarray, np.ndarray]],
        gates: tuple[np.ndarray, np.ndarray, np.ndarray],
        head: tuple[np.ndarray, float],
    ) -> None:
        """Convolutions: weights [out, in, 3] and biases [out]. Head: weight [128] and bias.

        `gates` of the LSTM: input weights [512, 128], recurrent weights [512, 128] and bias [512], in the order input,
        forget, cell, output with 128 rows each.
        """
        window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)).astype(np.float32)
        (weight, first_bias), *rest = convolutions
        first = _float_matrix(np.einsum("st,oit->sio", SUMS, weight), np.zeros(0))
        after = [_float_matrix(weight.transpose(2, 1, 0), bias) for weight, bias in rest]
        input_gates, recurrent_gates, bias = (_interleaved(part) for part in gates)
        products = _float_matrix(input_gates.T, bias), _float_matrix(recurrent_gates.T, np.zeros(0))
        constants = window, *(_aligned_copy(part) for part in (first_bias, head[0]))
        self._parts = first, after, products, constants
        addresses = [address(part) for part in constants]
        structs = (FloatMatrixStruct * 3)(*(part.struct for part in after)), *(part.struct for part in products)
        self._struct = _Silero(addresses[0], first.struct, addresses[1], *structs, addresses[2], float(head[1]))
        self._detect = library().conure_detect_speech

    def detect(self, samples: np.ndarray, memory: np.ndarray) -> np.ndarray:
        """samples [B, n * 512] -> speech probabilities [B, n].

        `memory` [B, 64 + 128 + 128] holds the last samples, LSTM output and LSTM cell of each stream; it is updated.
        """
        streams, steps = samples.shape[0], samples.shape[1] // STEP
        probabilities = np.empty((streams, steps), np.float32)
        outputs = address(memory), address(probabilities)
        self._detect(ctypes.byref(self._struct), address(samples), streams, steps, *outputs)
        return probabilities


def _aligned_copy(values: np.ndarray) -> np.ndarray:
    """A copy that is aligned to a cache line."""
    copy = aligned(*values.shape)
    copy[...] = values
    return copy


def _float_matrix(matrix: np.ndarray, bias: np.ndarray) -> FloatMatrix:
    """matrix [..., N] and bias [N]; an empty bias becomes zeros."""
    columns = matrix.shape[-1]
    return FloatMatrix(
        float_blocks(matrix.reshape(-1, columns)), _aligned_copy(bias if len(bias) else np.zeros(columns))
    )


def _interleaved(gates: np.ndarray) -> np.ndarray:
    """Gates of all units [4, units, ...] -> the four gates of 16 units, then of the next 16."""
    by_gate = gates.reshape(4, -1, SIMD_LANES, *gates.shape[1:])
    return by_gate.swapaxes(0, 1).reshape(gates.shape)
