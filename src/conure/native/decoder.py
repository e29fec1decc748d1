"""Greedy decoding in native kernels: one call runs the token loop of all rows, by the rules of `fused.label_step`.

Layer, Layer, ... ──> TransducerHeads ──> TransducerDecoder.decode(encoded, counts, state, rows) ──> TokenColumns
Layer ──────────────> CtcLabeller.label(encoded) ──> label, log-probability and confidence of each step
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
    "PADDING_BIAS",
    "TransducerDecoder",
    "DecoderState",
    "CtcLabeller",
    "Layer",
    "TransducerHeads",
    "TokenColumns",
    "pack_floats",
    "round_up",
]

PADDING_BIAS = -1e30
"""Bias of padding columns: they are never the best, and their probability is 0."""


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
        *((name, c_int64) for name in ("tokens", "durations_column")),
        ("durations", c_void_p),
        *((name, c_int64) for name in ("duration_count", "max_symbols")),
        ("alpha", c_float),
    )


class _DecoderState(Structure):
    _fields_ = tuple((name, c_void_p) for name in ("hidden", "cell", "predicted", "last_token", "skip", "decoded"))


class _Chunk(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("encoded", "counts", "slots")),
        *((name, c_int64) for name in ("rows", "steps", "width", "stride")),
    )


class _TokenColumns(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("ids", "steps", "durations", "log_probabilities", "confidences", "counts")),
        ("capacity", c_int64),
    )


class Layer:
    """x @ weight.T + bias: int8 values from `library.pack` with scales [N], or float32 values from `pack_floats`."""

    def __init__(self, values: np.ndarray, scales: np.ndarray | None, bias: np.ndarray) -> None:
        self._arrays = (values, scales, bias)
        self.columns, self.depth = len(bias), values.shape[1] * (QUAD if scales is not None else 1)
        scales_address = None if scales is None else address(scales)
        self.struct = _Layer(address(values), scales_address, address(bias), self.depth, self.columns)


@dataclass(frozen=True)
class TransducerHeads:
    """Layers of a transducer, padded with zeros: outputs to multiples of BLOCK, inputs to multiples of a vector."""

    encoder: Layer
    """Projects encoder steps to the joint's width."""
    embedding: np.ndarray
    """[V + 1, P], P padded to a multiple of a vector."""
    cells: Sequence[Layer]
    """LSTM layers with input [input | hidden]: 64 columns are the gates in, forget, new, out of 16 units."""
    predicted: Layer
    joint: Layer
    """Tokens, then durations from the next whole block on."""
    tokens: int
    """Number of tokens with the blank, which is the last."""
    durations: Sequence[int]
    max_symbols: int
    alpha: float
    """Order of the Tsallis entropy that confidences are computed from."""


class DecoderState:
    """Decoder state of streams by slot, carried from chunk to chunk. New slots begin with the start symbol."""

    def __init__(self, heads: TransducerHeads, rows: int) -> None:
        shape = rows, len(heads.cells), heads.embedding.shape[1]
        self.hidden, self.cell = aligned(*shape), aligned(*shape)
        self.predicted = aligned(rows, heads.joint.depth)
        self.last_token = np.full(rows, heads.tokens - 1)
        """The last token, which the LSTM has not consumed yet."""
        self.skip, self.decoded = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        """Steps of the next chunk that a TDT duration skips; encoder steps so far."""
        self._start = heads.tokens - 1
        self.struct = _DecoderState(*map(address, self._parts))

    @property
    def _parts(self) -> tuple[np.ndarray, ...]:
        return self.hidden, self.cell, self.predicted, self.last_token, self.skip, self.decoded

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for part in self._parts)

    def reset(self, rows: Any) -> None:
        rows = np.asarray(rows)
        for part in self._parts:
            part[rows] = 0
        self.last_token[rows] = self._start

    def save(self, rows: np.ndarray) -> list[np.ndarray]:
        """A copy of rows, for `restore`."""
        return [part[rows] for part in self._parts]

    def restore(self, rows: np.ndarray, parts: list[np.ndarray]) -> None:
        for part, values in zip(self._parts, parts, strict=True):
            part[rows] = values


class TokenColumns:
    """Emitted tokens of each row: ids, steps, durations, log-probabilities and confidences [B, U]; counts [B]."""

    def __init__(self, rows: int, capacity: int) -> None:
        self.ids, self.steps, self.durations = (np.empty((rows, capacity), np.int64) for _ in range(3))
        self.log_probabilities, self.confidences = (np.empty((rows, capacity), np.float32) for _ in range(2))
        self.counts = np.zeros(rows, np.int64)
        self.struct = _TokenColumns(*map(address, (*self.columns, self.counts)), capacity)

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        return self.ids, self.steps, self.durations, self.log_probabilities, self.confidences


class TransducerDecoder:
    """Greedy decoding of a transducer. Threads share the columns of each product."""

    def __init__(self, kernels: Kernels, heads: TransducerHeads) -> None:
        self.heads, self._kernels = heads, kernels
        cells = (_Layer * len(heads.cells))(*(layer.struct for layer in heads.cells))
        durations = np.array(heads.durations, np.int64)
        self._arrays = cells, durations
        struct = _Heads(
            heads.encoder.struct,
            address(heads.embedding),
            ctypes.addressof(cells),
            len(heads.cells),
            heads.embedding.shape[1],
            heads.predicted.struct,
            heads.joint.struct,
            heads.tokens,
            round_up(heads.tokens, BLOCK),
            address(durations),
            len(durations),
            heads.max_symbols,
            heads.alpha,
        )
        self._decoder = library().conure_open_decoder(kernels.pool, byref(struct))

    def __del__(self) -> None:
        if hasattr(self, "_decoder"):
            library().conure_close_decoder(self._decoder)

    def decode(self, encoded: np.ndarray, counts: np.ndarray, state: DecoderState, rows: np.ndarray) -> TokenColumns:
        """encoded [B, S, D] and counts [B] for slots `rows` [B] of the state, which must be unique and are updated."""
        encoded, counts, rows = _steps(encoded), counts.astype(np.int64), rows.astype(np.int64)
        size, steps, width = encoded.shape
        tokens = TokenColumns(size, max(steps * self.heads.max_symbols, 1))
        addresses = encoded.ctypes.data, address(counts), address(rows)
        chunk = _Chunk(*addresses, size, steps, width, encoded.strides[0] // encoded.itemsize)
        library().conure_decode(self._decoder, byref(chunk), byref(state.struct), byref(tokens.struct))
        return tokens


class CtcLabeller:
    """Labels of encoder steps by a CTC head."""

    def __init__(self, kernels: Kernels, head: Layer, tokens: int, alpha: float) -> None:
        self._kernels, self.head, self.tokens, self.alpha = kernels, head, tokens, alpha

    def label(self, encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """encoded [S, D] -> the best label of each step, its log-probability and confidence, [S] each."""
        encoded = np.ascontiguousarray(encoded, np.float32)
        count, width = encoded.shape
        ids, log_probabilities, confidences = np.empty(count, np.int64), *(np.empty(count, np.float32) for _ in "lc")
        outputs = map(address, (ids, log_probabilities, confidences))
        head = byref(self.head.struct)
        library().conure_label(
            self._kernels.pool, head, self.tokens, self.alpha, address(encoded), count, width, *outputs
        )
        return ids, log_probabilities, confidences


def pack_floats(weight: np.ndarray) -> np.ndarray:
    """float32 weights [N, K] in the kernels' layout: [N / 64, K, 64]."""
    columns, depth = weight.shape
    return np.ascontiguousarray(weight.reshape(columns // BLOCK, BLOCK, depth).transpose(0, 2, 1), np.float32)


def round_up(size: int, multiple: int) -> int:
    """Rounds up to a multiple."""
    return -(-size // multiple) * multiple


def _steps(encoded: np.ndarray) -> np.ndarray:
    """float32 with contiguous steps; rows may be strided."""
    step = encoded.itemsize * encoded.shape[2]
    if encoded.dtype == np.float32 and encoded.strides[1:] == (step, encoded.itemsize):
        return encoded
    return np.ascontiguousarray(encoded, np.float32)
