"""The compiled kernels as functions of arrays; see source/ for what they do and why.

They are there where the package was built with a compiler, and they run where the processor multiplies bytes and
adds them up in 32 bits (x86 with AVX-512 VNNI). `available` tells. Calls let other Python threads run.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from ctypes import Structure, addressof, c_char, c_float, c_int, c_int32, c_int64, c_void_p
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "BLOCK",
    "FFT_SIZE",
    "LANES",
    "After",
    "Attention",
    "Clips",
    "Distances",
    "Filter",
    "Kernels",
    "MelTables",
    "Norm",
    "Quantised",
    "Rings",
    "StepStruct",
    "Weight",
    "address",
    "aligned",
    "has_native_kernels",
    "library",
    "pack",
]

LIBRARY_PATH = Path(__file__).with_name("_kernels.so")

BLOCK = 64
"""Columns of a weight that lie together."""
LANES = 16
"""Floats that are taken at a time: rows are multiples of it."""
FFT_SIZE = 512
QUAD, OFFSET, LINE = 4, 128, 64


class After(IntEnum):
    """What is done to a product before it is written."""

    NOTHING = 0
    SILU = 1
    RELU = 2
    GATE = 3
    """Of 64 columns the second half are gates of the first."""
    ADD = 4
    """Added to what is there."""


class _Norm(Structure):
    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("epsilon", c_float))


class _Quantised(Structure):
    _fields_ = (("values", c_void_p), ("scales", c_void_p), ("sums", c_void_p))


class WeightStruct(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("values", "scales", "bias")),
        *((name, c_int64) for name in ("depth", "columns")),
    )


class _Result(Structure):
    _fields_ = (("values", c_void_p), ("stride", c_int64), ("after", c_int32))


class _Rings(Structure):
    _fields_ = (("keys", c_void_p), ("values", c_void_p), ("ring", c_int64), ("stride", c_int64))


class _Turn(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("slots", "ages", "counts")),
        *((name, c_int64) for name in ("rows", "chunk")),
    )


class _Attention(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("shift", "table")),
        *((name, c_int64) for name in ("columns", "heads", "width", "past", "longest")),
    )


class _Clips(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("begins", "first", "end")),
        ("count", c_int64),
        *((name, c_void_p) for name in ("tokens", "places", "beside")),
        ("most", c_int64),
    )


class _Distances(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("values", "scales", "shift")),
        *((name, c_int64) for name in ("heads", "width", "columns", "reach")),
    )


class _Filter(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("weight", "bias")),
        *((name, c_int64) for name in ("size", "width")),
    )


class _Mel(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("window", "filters", "ranges")),
        *((name, c_int64) for name in ("hop", "features")),
        ("guard", c_float),
    )


class Norm:
    """Layer normalisation: weight and bias [D]; without a weight it does nothing."""

    def __init__(self, weight: np.ndarray | None = None, bias: np.ndarray | None = None, epsilon: float = 0) -> None:
        self._kept = (weight, bias)
        self.struct = _Norm(*(None if part is None else address(part) for part in self._kept), epsilon)


NO_NORM = Norm()


class Weight:
    """The right side of products: `pack` gives its values, scales [N] are of its columns, bias [N]."""

    def __init__(self, values: np.ndarray, scales: np.ndarray, bias: np.ndarray | None) -> None:
        self._kept = (values, scales, bias)
        self.columns, self.depth = values.shape[0] * BLOCK, values.shape[1] * QUAD
        at = None if bias is None else address(bias)
        self.struct = WeightStruct(address(values), address(scales), at, self.depth, self.columns)


class Attention:
    """Of a layer: shift [h * d], table [h, d, columns] in halves, whose column c is of distance past + longest - c."""

    def __init__(self, shift: np.ndarray, table: np.ndarray, past: int, longest: int) -> None:
        self._kept = (shift, table)
        heads, width, columns = table.shape
        self.struct = _Attention(address(shift), address(table), columns, heads, width, past, longest)


class Distances:
    """Of a layer, for clips: `pack` gives values of each head, scales [h, columns] are of columns; shift [h * d].

    Column c is of distance columns / 2 - c.
    """

    def __init__(self, values: np.ndarray, scales: np.ndarray, shift: np.ndarray) -> None:
        self._kept = (values, scales, shift)
        heads, columns = scales.shape
        self.reach = columns // 2
        self.struct = _Distances(*map(address, self._kept), heads, len(shift) // heads, columns, self.reach)


class Filter:
    """A filter over time: weight [size, D], bias [D]."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self._kept = (weight, bias)
        self.struct = _Filter(address(weight), address(bias), *weight.shape)


class MelTables:
    """Log-mel: window [512], filters [features, 257]; a frame begins each `hop` samples."""

    def __init__(self, window: np.ndarray, filters: np.ndarray, hop: int, guard: float) -> None:
        if window.shape != (FFT_SIZE,) or filters.shape[1] != FFT_SIZE // 2 + 1:
            raise ValueError(f"frames must be of {FFT_SIZE} samples, not {len(window)}")
        self.hop, self.features = hop, len(filters)
        used = filters != 0
        ends = filters.shape[1] - used[:, ::-1].argmax(1)
        ranges = np.stack([used.argmax(1), np.where(used.any(1), ends, 0)], 1).astype(np.int64)
        self._kept = tuple(map(np.ascontiguousarray, (window, filters, ranges)))
        self.struct = _Mel(*map(address, self._kept), hop, self.features, guard)


class Rings:
    """Keys and values of all rows in half precision, `ring` steps each."""

    def __init__(self, slots: int, heads: int, width: int, ring: int) -> None:
        stride = -(-ring // LANES) * LANES
        self.keys = aligned(slots, heads, width, stride, kind=np.uint16)
        self.values = aligned(slots, heads, ring, width, kind=np.uint16)
        self.struct = _Rings(address(self.keys), address(self.values), ring, stride)


class StepStruct:
    """Rows [B] that bring `counts` [B] of a chunk's steps, `ages` [B] steps after their start."""

    def __init__(self, slots: np.ndarray, ages: np.ndarray, counts: np.ndarray, chunk: int) -> None:
        self._kept = tuple(np.ascontiguousarray(array, np.int64) for array in (slots, ages, counts))
        self.struct = _Turn(*map(address, self._kept), len(slots), chunk)


class Clips:
    """Clips of `counts` [C] steps, one after another. A step sees those of its clip from `first` [N] to `end` [N].

    It may see some rows of its clip beside them: `places` of each clip, and `beside` [N, heads, most], the scores of
    those, which may be filled before each layer.
    """

    def __init__(
        self,
        counts: np.ndarray,
        first: np.ndarray,
        end: np.ndarray,
        places: Sequence[np.ndarray] = (),
        beside: np.ndarray | None = None,
    ) -> None:
        begins = np.concatenate([[0], np.cumsum(counts)])
        self._kept = tuple(np.ascontiguousarray(array, np.int64) for array in (begins, first, end))
        self.struct = _Clips(*map(address, self._kept), len(counts))
        if beside is not None:
            tokens = np.concatenate([[0], np.cumsum([len(rows) for rows in places])])
            more = tuple(np.ascontiguousarray(array, np.int64) for array in (tokens, np.concatenate(places)))
            self._kept += (*more, beside)
            self.struct.tokens, self.struct.places = map(address, more)
            self.struct.beside, self.struct.most = address(beside), beside.shape[2]


class Quantised:
    """Room for rows of bytes, each with its own scale."""

    def __init__(self, rows: int, size: int) -> None:
        self._kept = aligned(size, kind=np.int8), aligned(rows), aligned(rows, kind=np.int32)
        self.room, self.rows = (rows, size), 0
        self.struct = _Quantised(*map(address, self._kept))


class Kernels:
    """A pool of threads that runs the kernels. Rows are float32 in C order; `out` is written."""

    def __init__(self, threads: int) -> None:
        """Raises OSError where there is no library."""
        self._library = library()
        self._pool = self._library.conure_pool(threads)
        self._rooms: dict[str, np.ndarray] = {}
        self._quantised = Quantised(0, 0)

    def __del__(self) -> None:
        if hasattr(self, "_pool"):
            self._library.conure_close(self._pool)

    @property
    def pool(self) -> int:
        """For what runs in the same threads; it ends with these kernels."""
        pool: int = self._pool
        return pool

    def room(self, name: str, *shape: int) -> np.ndarray:
        """An array that is kept for the next time: what is in it is not defined."""
        size = math.prod(shape)
        if name not in self._rooms or len(self._rooms[name]) < size:
            self._rooms[name] = aligned(size)
        return self._rooms[name][:size].reshape(shape)

    def normalise(self, x: np.ndarray, norm: Norm, out: np.ndarray) -> None:
        """x [rows, D], which may be `out`."""
        self._library.conure_normalise(self._pool, address(x), *x.shape, ctypes.byref(norm.struct), address(out))

    def quantise(self, x: np.ndarray, norm: Norm | None = None, *, gated: bool = False) -> Quantised:
        """x [rows, D], normalised, then through SiLU if `gated`, each row rounded to +-127; until the next call."""
        rows, width = x.shape
        wanted = (rows, rows * width)
        if any(has < wants for has, wants in zip(self._quantised.room, wanted, strict=True)):
            self._quantised = Quantised(*map(max, self._quantised.room, wanted))
        to, place = self._quantised, ctypes.byref((norm or NO_NORM).struct)
        self._library.conure_quantise(self._pool, address(x), rows, width, place, gated, ctypes.byref(to.struct))
        to.rows = rows
        return to

    def multiply(self, x: Quantised, weight: Weight, out: np.ndarray, after: After = After.NOTHING) -> np.ndarray:
        """-> out [rows, N], or [rows, N / 2] with a gate."""
        result = _Result(address(out), out.shape[1], after)
        structs = ctypes.byref(x.struct), x.rows, ctypes.byref(weight.struct), ctypes.byref(result)
        self._library.conure_multiply(self._pool, *structs)
        return out

    def attend(
        self, own: Attention, rings: Rings, turn: StepStruct, projected: np.ndarray, out: np.ndarray
    ) -> np.ndarray:
        """projected [B * C, 3 * h * d] are queries, keys, values; -> out [B * C, h * d]."""
        structs = (ctypes.byref(part.struct) for part in (own, rings, turn))
        self._library.conure_attend(self._pool, *structs, address(projected), address(out))
        return out

    def filter(self, own: Filter, memory: np.ndarray, turn: StepStruct, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """x [B * C, D] behind what is in memory [slots, ring, D], which takes it up; -> out [B * C, D]."""
        structs = (ctypes.byref(own.struct), address(memory), memory.shape[1], ctypes.byref(turn.struct))
        self._library.conure_filter(self._pool, *structs, address(x), address(out))
        return out

    def attend_clips(self, own: Distances, clips: Clips, projected: np.ndarray, out: np.ndarray) -> np.ndarray:
        """projected [N, 3 * h * d] are queries, keys, values; -> out [N, h * d]."""
        structs = (ctypes.byref(part.struct) for part in (own, clips))
        self._library.conure_attend_clips(self._pool, *structs, address(projected), address(out))
        return out

    def filter_clips(self, own: Filter, before: int, clips: Clips, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """x [N, D] -> out [N, D]; a filter begins `before` steps before the one it is for."""
        structs = (ctypes.byref(part.struct) for part in (own, clips))
        self._library.conure_filter_clips(self._pool, *structs, before, address(x), address(out))
        return out

    def log_mel(self, mel: MelTables, samples: np.ndarray) -> np.ndarray:
        """samples [B, N], without padding -> [B, 1 + (N - 512) // hop, features]."""
        rows, size = samples.shape
        frames = 1 + (size - FFT_SIZE) // mel.hop
        out = aligned(rows, frames, mel.features)
        place = ctypes.byref(mel.struct)
        self._library.conure_log_mel(self._pool, place, address(samples), rows, size, frames, address(out))
        return out


def aligned(*shape: int, kind: type[np.generic] = np.float32) -> np.ndarray:
    """Zeros that begin at a line of the cache; NumPy's own begin 16 bytes after one, and each vector lies in two."""
    size = math.prod(shape) * np.dtype(kind).itemsize
    room = np.zeros(size + LINE, np.uint8)
    begin = -room.ctypes.data % LINE
    return room[begin : begin + size].view(kind).reshape(shape)


def pack(weight: np.ndarray) -> np.ndarray:
    """Bytes with a sign [N, K] as the kernels read them: [N / 64, K / 4, 64, 4], without a sign."""
    columns, depth = weight.shape
    blocks = weight.reshape(columns // BLOCK, BLOCK, depth // QUAD, QUAD).transpose(0, 2, 1, 3)
    return np.ascontiguousarray((blocks.astype(np.int16) + OFFSET).astype(np.uint8))


@functools.cache
def has_native_kernels() -> bool:
    """Whether kernels were built and this processor has what they need."""
    try:
        return bool(library().conure_supported())
    except OSError:
        return False


@functools.cache
def library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(LIBRARY_PATH))
    pointer, size = c_void_p, c_int64
    signatures = {
        "supported": (c_int, []),
        "pool": (pointer, [c_int]),
        "close": (None, [pointer]),
        "normalise": (None, [pointer, pointer, size, size, pointer, pointer]),
        "quantise": (None, [pointer, pointer, size, size, pointer, c_int, pointer]),
        "multiply": (None, [pointer, pointer, size, pointer, pointer]),
        "attend": (None, [pointer] * 6),
        "attend_clips": (None, [pointer] * 5),
        "filter_clips": (None, [pointer, pointer, pointer, size, pointer, pointer]),
        "log_mel": (None, [pointer, pointer, pointer, size, size, size, pointer]),
        "filter": (None, [pointer, pointer, pointer, size, pointer, pointer, pointer]),
        "decoder": (pointer, [pointer, pointer]),
        "close_decoder": (None, [pointer]),
        "decode": (None, [pointer] * 4),
        "label": (None, [pointer, pointer, size, c_float, pointer, size, size, pointer, pointer, pointer]),
        "front": (None, [pointer, pointer, pointer, size]),
        "silero": (None, [pointer, pointer, size, size, pointer, pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"conure_{name}")
        function.restype, function.argtypes = result, arguments
    return library


def address(array: Any) -> int:
    """Of a NumPy array. The quick way takes a half of the time, but arrays that may be written only."""
    return addressof(c_char.from_buffer(array)) if array.flags.writeable and array.size else int(array.ctypes.data)
