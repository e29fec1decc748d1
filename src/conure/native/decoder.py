"""Greedy decoding in native kernels: whole loops over the tokens of all rows, by the rules of `fused.label_step`.

Layer, Layer, ... ──> TransducerHeads ──> Decoder.decode(encoded, counts, memory, rows) ──> Written
                                          Labeller.label(encoded) ──> labels of steps, for CTC
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import Structure, byref, c_float, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np

from conure.native.library import BLOCK, QUAD, Kernels, address, aligned, library

__all__ = [
    "LEAST",
    "Decoder",
    "DecoderMemory",
    "Labeller",
    "Layer",
    "TransducerHeads",
    "Written",
    "pack_floats",
    "whole",
]

LEAST = -1e30
"""The bias of columns that fill a block up: they are never the best, and their probability is 0."""


class _Layer(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("values", "scales", "bias")),
        *((name, c_int64) for name in ("depth", "columns")),
    )


class _Heads(Structure):
    _fields_ = (
        ("encoder", _Layer),
        ("embedding", c_void_p),
        ("cells", c_void_p),
        *((name, c_int64) for name in ("layers", "width")),
        *((name, _Layer) for name in ("predicted", "joint")),
        *((name, c_int64) for name in ("tokens", "lasting")),
        ("durations", c_void_p),
        *((name, c_int64) for name in ("kinds", "most_symbols")),
        ("alpha", c_float),
    )


class _Memory(Structure):
    _fields_ = tuple((name, c_void_p) for name in ("hidden", "cell", "predicted", "said", "ahead", "decoded"))


class _Chunk(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("encoded", "counts", "slots")),
        *((name, c_int64) for name in ("rows", "steps", "width", "stride")),
    )


class _Written(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("ids", "steps", "durations", "log_probabilities", "confidences", "counts")),
        ("room", c_int64),
    )


class Layer:
    """x @ weight.T + bias: values are bytes as `library.pack` gives them, with scales [N], or floats as `pack_floats`
    does."""

    def __init__(self, values: np.ndarray, scales: np.ndarray | None, bias: np.ndarray) -> None:
        self._kept = (values, scales, bias)
        self.columns, self.depth = len(bias), values.shape[1] * (QUAD if scales is not None else 1)
        at = None if scales is None else address(scales)
        self.struct = _Layer(address(values), at, address(bias), self.depth, self.columns)


@dataclass(frozen=True)
class TransducerHeads:
    """Layers are filled up with zeros: outputs to whole blocks of columns, inputs to whole vectors."""

    encoder: Layer
    """Encoder steps as the joint sees them."""
    embedding: np.ndarray
    """[V + 1, P], P whole vectors."""
    cells: Sequence[Layer]
    """Of the LSTM's layers, from [input, hidden]: 64 columns are four gates of 16 units: in, forget, new, out."""
    predicted: Layer
    joint: Layer
    """Tokens, then from a whole block on the durations."""
    tokens: int
    """With the blank, which is the last."""
    durations: Sequence[int]
    most_symbols: int
    alpha: float
    """The order of the entropy that confidences are found from."""


class DecoderMemory:
    """What rows of streams carry from chunk to chunk; fresh ones have the start symbol before them."""

    def __init__(self, heads: TransducerHeads, rows: int) -> None:
        shape = rows, len(heads.cells), heads.embedding.shape[1]
        self.hidden, self.cell = aligned(*shape), aligned(*shape)
        self.predicted = aligned(rows, heads.joint.depth)
        self.said = np.full(rows, heads.tokens - 1)
        """The token that the LSTM has yet to take up."""
        self.ahead, self.decoded = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        """Steps of the next chunk already jumped over; steps so far."""
        self._start = heads.tokens - 1
        self.struct = _Memory(*map(address, self._parts))

    @property
    def _parts(self) -> tuple[np.ndarray, ...]:
        return self.hidden, self.cell, self.predicted, self.said, self.ahead, self.decoded

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for part in self._parts)

    def reset(self, rows: Any) -> None:
        rows = np.asarray(rows)
        for part in self._parts:
            part[rows] = 0
        self.said[rows] = self._start

    def copy(self, rows: np.ndarray) -> list[np.ndarray]:
        """What `write` puts back."""
        return [part[rows] for part in self._parts]

    def write(self, rows: np.ndarray, parts: list[np.ndarray]) -> None:
        for part, values in zip(self._parts, parts, strict=True):
            part[rows] = values


class Written:
    """Tokens of each row: ids, steps, durations, log-probabilities and confidences [B, U]; how many, [B]."""

    def __init__(self, rows: int, room: int) -> None:
        self.ids, self.steps, self.durations = (np.empty((rows, room), np.int64) for _ in range(3))
        self.log_probabilities, self.confidences = (np.empty((rows, room), np.float32) for _ in range(2))
        self.counts = np.zeros(rows, np.int64)
        self.struct = _Written(*map(address, (*self.columns, self.counts)), room)

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        return self.ids, self.steps, self.durations, self.log_probabilities, self.confidences


class Decoder:
    """A transducer's greedy loop. Its kernels' threads share the columns of each product."""

    def __init__(self, kernels: Kernels, heads: TransducerHeads) -> None:
        self.heads, self._kernels = heads, kernels
        cells = (_Layer * len(heads.cells))(*(layer.struct for layer in heads.cells))
        durations = np.array(heads.durations, np.int64)
        self._kept = cells, durations
        struct = _Heads(
            heads.encoder.struct,
            address(heads.embedding),
            ctypes.addressof(cells),
            len(heads.cells),
            heads.embedding.shape[1],
            heads.predicted.struct,
            heads.joint.struct,
            heads.tokens,
            whole(heads.tokens, BLOCK),
            address(durations),
            len(durations),
            heads.most_symbols,
            heads.alpha,
        )
        self._decoder = library().conure_decoder(kernels.pool, byref(struct))

    def __del__(self) -> None:
        if hasattr(self, "_decoder"):
            library().conure_close_decoder(self._decoder)

    def decode(self, encoded: np.ndarray, counts: np.ndarray, memory: DecoderMemory, rows: np.ndarray) -> Written:
        """encoded [B, S, D] and counts [B] for rows [B] of the memory, no row twice; they are moved on in place."""
        encoded, counts, rows = _steps(encoded), counts.astype(np.int64), rows.astype(np.int64)
        size, steps, width = encoded.shape
        to = Written(size, max(steps * self.heads.most_symbols, 1))
        at = encoded.ctypes.data, address(counts), address(rows)
        chunk = _Chunk(*at, size, steps, width, encoded.strides[0] // encoded.itemsize)
        library().conure_decode(self._decoder, byref(chunk), byref(memory.struct), byref(to.struct))
        return to


class Labeller:
    """A CTC head."""

    def __init__(self, kernels: Kernels, head: Layer, tokens: int, alpha: float) -> None:
        self._kernels, self.head, self.tokens, self.alpha = kernels, head, tokens, alpha

    def label(self, encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """encoded [S, D] -> the best label of each step, its log-probability and how sure the head is, [S] each."""
        encoded = np.ascontiguousarray(encoded, np.float32)
        count, width = encoded.shape
        ids, log_probabilities, confidences = np.empty(count, np.int64), *(np.empty(count, np.float32) for _ in "lc")
        at = map(address, (ids, log_probabilities, confidences))
        head = byref(self.head.struct)
        library().conure_label(self._kernels.pool, head, self.tokens, self.alpha, address(encoded), count, width, *at)
        return ids, log_probabilities, confidences


def pack_floats(weight: np.ndarray) -> np.ndarray:
    """Floats [N, K] as the kernels read them: [N / 64, K, 64]."""
    columns, depth = weight.shape
    return np.ascontiguousarray(weight.reshape(columns // BLOCK, BLOCK, depth).transpose(0, 2, 1), np.float32)


def whole(size: int, part: int) -> int:
    """The least multiple of a part that is no smaller."""
    return -(-size // part) * part


def _steps(encoded: np.ndarray) -> np.ndarray:
    """Floats whose steps lie one after the other; rows may lie apart."""
    step = encoded.itemsize * encoded.shape[2]
    if encoded.dtype == np.float32 and encoded.strides[1:] == (step, encoded.itemsize):
        return encoded
    return np.ascontiguousarray(encoded, np.float32)
