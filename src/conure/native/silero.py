"""Silero's speech detector as a kernel, on the thread that calls."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import Structure, c_float, c_void_p

import numpy as np

from conure.native.dense import Dense, DenseStruct, dense_blocks
from conure.native.library import LANES, address, aligned, library

__all__ = ["SileroKernel"]

STEP, FRAME = 512, 256


class _Silero(Structure):
    _fields_ = (
        ("window", c_void_p),
        ("convolutions", DenseStruct * 4),
        ("input", DenseStruct),
        ("output", DenseStruct),
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
        """Convolutions [out, in, 3] and biases [out]; head [128] and its bias.

        `gates` are those of the LSTM, [512, 128] of its input, the same of its output, and a bias [512]; of input,
        forget, cell and output, 128 each.
        """
        window = (0.25 - 0.25 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)).astype(np.float32)
        taps = [Dense(_taps(weight), _kept(bias)) for weight, bias in convolutions]
        from_input, from_output, bias = (_interleaved(part) for part in gates)
        products = Dense(dense_blocks(from_input.T), _kept(bias)), Dense(dense_blocks(from_output.T), _kept(0 * bias))
        weight, head_bias = _kept(head[0]), float(head[1])
        self._parts = window, taps, products, weight
        structs = (DenseStruct * 4)(*(part.struct for part in taps)), *(part.struct for part in products)
        self._struct = _Silero(address(window), *structs, address(weight), head_bias)
        self._listen = library().conure_silero

    def listen(self, samples: np.ndarray, memory: np.ndarray) -> np.ndarray:
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


def _taps(weight: np.ndarray) -> np.ndarray:
    """A convolution [out, in, 3] as a product [3 * in, out] in blocks."""
    return dense_blocks(weight.transpose(2, 1, 0).reshape(-1, len(weight)))


def _interleaved(gates: np.ndarray) -> np.ndarray:
    """Of all units the first gate, then the second ... -> of 16 units the first, the second ..., of the next 16."""
    by_gate = gates.reshape(4, -1, LANES, *gates.shape[1:])
    return by_gate.swapaxes(0, 1).reshape(gates.shape)
