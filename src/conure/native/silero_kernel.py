"""Silero's speech detector as a kernel, on the thread that calls."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import Structure, c_float, c_void_p

import numpy as np

from conure.native.float_matmul import FloatMatrix, FloatMatrixStruct, float_blocks
from conure.native.library import LANES, address, aligned, library

__all__ = ["SileroKernel"]

STEP, FRAME = 512, 256

SUMS = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
"""Of a convolution's three taps: what the kernel multiplies its sums of frames by."""


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
    """Weights of the network, all in float32."""

    def __init__(
        self,
        convolutions: Sequence[tuple[np.ndarray, np.ndarray]],
        gates: tuple[np.ndarray, np.ndarray, np.ndarray],
        head: tuple[np.ndarray, float],
    ) -> None:
        """The convolutions [out, in, 3] and biases [out]; head [128] and its bias.

        `gates` are those of the LSTM, [512, 128] of its input, the same of its output, and a bias [512]; of input,
        forget, cell and output, 128 each.
        """
        window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)).astype(np.float32)
        (weight, first_bias), *rest = convolutions
        first = _dense(np.einsum("st,oit->sio", SUMS, weight), np.zeros(0))
        after = [_dense(weight.transpose(2, 1, 0), bias) for weight, bias in rest]
        of_input, of_output, bias = (_interleaved(part) for part in gates)
        products = _dense(of_input.T, bias), _dense(of_output.T, np.zeros(0))
        constants = window, *(_kept(part) for part in (first_bias, head[0]))
        self._parts = first, after, products, constants
        places = [address(part) for part in constants]
        structs = (FloatMatrixStruct * 3)(*(part.struct for part in after)), *(part.struct for part in products)
        self._struct = _Silero(places[0], first.struct, places[1], *structs, places[2], float(head[1]))
        self._listen = library().conure_silero

    def detect(self, samples: np.ndarray, memory: np.ndarray) -> np.ndarray:
        """samples [B, n * 512] of some streams -> probabilities [B, n].

        Memory [B, 64 + 128 + 128] holds each one's last samples, the LSTM's output and its cell, and moves on.
        """
        streams, steps = samples.shape[0], samples.shape[1] // STEP
        probabilities = np.empty((streams, steps), np.float32)
        to = address(memory), address(probabilities)
        self._listen(ctypes.byref(self._struct), address(samples), streams, steps, *to)
        return probabilities


def _kept(values: np.ndarray) -> np.ndarray:
    """A copy at a line of the cache."""
    copy = aligned(*values.shape)
    copy[...] = values
    return copy


def _dense(matrix: np.ndarray, bias: np.ndarray) -> FloatMatrix:
    """A matrix [..., N]; without a bias it is one of zeros."""
    columns = matrix.shape[-1]
    return FloatMatrix(float_blocks(matrix.reshape(-1, columns)), _kept(bias if len(bias) else np.zeros(columns)))


def _interleaved(gates: np.ndarray) -> np.ndarray:
    """Of all units the first gate, then the second ... -> of 16 units the first, the second ..., of the next 16."""
    by_gate = gates.reshape(4, -1, LANES, *gates.shape[1:])
    return by_gate.swapaxes(0, 1).reshape(gates.shape)
