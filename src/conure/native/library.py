"""Python interface of the compiled kernels in source/: functions of NumPy arrays, called through ctypes.

The library exists if the package was built with a C++ compiler, and runs on x86 processors with AVX-512 VNNI.
`has_native_kernels` checks both. Calls release the GIL.
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
    "SIMD_LANES",
    "Epilogue",
    "Attention",
    "Clips",
    "Distances",
    "Filter",
    "Kernels",
    "MelTables",
    "Norm",
    "Quantised",
    "Rings",
    "StreamStep",
    "Weight",
    "address",
    "aligned",
    "has_native_kernels",
    "library",
    "pack",
]

LIBRARY_PATH = Path(__file__).with_name("_kernels.so")

BLOCK = 64
"""Columns of a weight in one block."""
SIMD_LANES = 16
"""float32 numbers in a vector register; rows have multiples of it."""
FFT_SIZE = 512
QUAD, OFFSET, CACHE_LINE = 4, 128, 64


class Epilogue(IntEnum):
    """Operation that is applied to a product before it is stored."""

    NOTHING = 0
    SILU = 1
    RELU = 2
    GATE = 3
    """In each 64 columns, the second half are the gates of the first half."""
    ADD = 4
    """Adds the product to the output array."""


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


class _StreamStep(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("slots", "ages", "counts")),
        *((name, c_int64) for name in ("rows", "chunk")),
    )


class _Attention(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("shift", "table")),
        *((name, c_int64) for name in ("columns", "heads", "width", "past", "max_chunk")),
    )


class _Clips(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("begins", "first", "end")),
        ("count", c_int64),
        *((name, c_void_p) for name in ("global_begins", "global_rows", "global_scores")),
        ("max_global", c_int64),
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
    """Layer normalisation with weight and bias [D]; the identity without a weight."""

    def __init__(self, weight: np.ndarray | None = None, bias: np.ndarray | None = None, epsilon: float = 0) -> None:
        self._arrays = (weight, bias)
        self.struct = _Norm(*(None if part is None else address(part) for part in self._arrays), epsilon)


NO_NORM = Norm()


class Weight:
    """The right side of an int8 product: values from `pack`, scales [N] of the columns, bias [N]."""

    def __init__(self, values: np.ndarray, scales: np.ndarray, bias: np.ndarray | None) -> None:
        self._arrays = (values, scales, bias)
        self.columns, self.depth = values.shape[0] * BLOCK, values.shape[1] * QUAD
        bias_address = None if bias is None else address(bias)
        self.struct = WeightStruct(address(values), address(scales), bias_address, self.depth, self.columns)


class Attention:
    """Relative attention of a layer for streams: shift [h * d] is the position bias minus the content bias, table
    [h, d, columns] holds float16 projections of distances. Column c is distance past + max_chunk - c."""

    def __init__(self, shift: np.ndarray, table: np.ndarray, past: int, max_chunk: int) -> None:
        self._arrays = (shift, table)
        heads, width, columns = table.shape
        self.struct = _Attention(address(shift), address(table), columns, heads, width, past, max_chunk)


class Distances:
    """Projected distances of a layer for clips: packed int8 values by head, scales [h, columns], shift [h * d].

    Column c is distance columns / 2 - c.
    """

    def __init__(self, values: np.ndarray, scales: np.ndarray, shift: np.ndarray) -> None:
        self._arrays = (values, scales, shift)
        heads, columns = scales.shape
        self.reach = columns // 2
        self.struct = _Distances(*map(address, self._arrays), heads, len(shift) // heads, columns, self.reach)


class Filter:
    """Depthwise convolution over time: weight [size, D], bias [D]."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self._arrays = (weight, bias)
        self.struct = _Filter(address(weight), address(bias), *weight.shape)


class MelTables:
    """Log-mel parameters: window [512], filters [features, 257]; a frame begins every `hop` samples."""

    def __init__(self, window: np.ndarray, filters: np.ndarray, hop: int, guard: float) -> None:
        if window.shape != (FFT_SIZE,) or filters.shape[1] != FFT_SIZE // 2 + 1:
            raise ValueError(f"frames must be of {FFT_SIZE} samples, not {len(window)}")
        self.hop, self.features = hop, len(filters)
        used = filters != 0
        ends = filters.shape[1] - used[:, ::-1].argmax(1)
        ranges = np.stack([used.argmax(1), np.where(used.any(1), ends, 0)], 1).astype(np.int64)
        self._arrays = tuple(map(np.ascontiguousarray, (window, filters, ranges)))
        self.struct = _Mel(*map(address, self._arrays), hop, self.features, guard)


class Rings:
    """Ring buffers of keys and values in float16, `ring` steps for each slot."""

    def __init__(self, slots: int, heads: int, width: int, ring: int) -> None:
        stride = -(-ring // SIMD_LANES) * SIMD_LANES
        self.keys = aligned(slots, heads, width, stride, kind=np.uint16)
        self.values = aligned(slots, heads, ring, width, kind=np.uint16)
        self.struct = _Rings(address(self.keys), address(self.values), ring, stride)


class StreamStep:
    """The rows of one step: slots [B], valid steps `counts` [B] of each chunk, and `ages` [B], the steps before it."""

    def __init__(self, slots: np.ndarray, ages: np.ndarray, counts: np.ndarray, chunk: int) -> None:
        self._arrays = tuple(np.ascontiguousarray(array, np.int64) for array in (slots, ages, counts))
        self.struct = _StreamStep(*map(address, self._arrays), len(slots), chunk)


class Clips:
    """Concatenated clips of `counts` [C] steps. Steps `first` [N] to `end` [N] of its clip are visible to each step.

    Optional global steps are visible to all steps of their clip: `global_rows` of each clip, and `global_scores`
    [N, heads, max_global], which the caller fills before each layer.
    """

    def __init__(
        self,
        counts: np.ndarray,
        first: np.ndarray,
        end: np.ndarray,
        global_rows: Sequence[np.ndarray] = (),
        global_scores: np.ndarray | None = None,
    ) -> None:
        begins = np.concatenate([[0], np.cumsum(counts)])
        self._arrays = tuple(np.ascontiguousarray(array, np.int64) for array in (begins, first, end))
        self.struct = _Clips(*map(address, self._arrays), len(counts))
        if global_scores is not None:
            begins = np.concatenate([[0], np.cumsum([len(rows) for rows in global_rows])])
            arrays = tuple(np.ascontiguousarray(array, np.int64) for array in (begins, np.concatenate(global_rows)))
            self._arrays += (*arrays, global_scores)
            self.struct.global_begins, self.struct.global_rows = map(address, arrays)
            self.struct.global_scores, self.struct.max_global = address(global_scores), global_scores.shape[2]


class Quantised:
    """Buffer for int8 rows, each with its own scale."""

    def __init__(self, rows: int, size: int) -> None:
        self._arrays = aligned(size, kind=np.int8), aligned(rows), aligned(rows, kind=np.int32)
        self.capacity, self.rows = (rows, size), 0
        self.struct = _Quantised(*map(address, self._arrays))


class Kernels:
    """A thread pool that runs the kernels. Rows are C-contiguous float32; results are written to `out`."""

    def __init__(self, threads: int) -> None:
        """Raises OSError if the library does not exist."""
        self._library = library()
        self._pool = self._library.conure_open_pool(threads)
        self._buffers: dict[str, np.ndarray] = {}
        self._quantised = Quantised(0, 0)

    def __del__(self) -> None:
        if hasattr(self, "_pool"):
            self._library.conure_close_pool(self._pool)

    @property
    def pool(self) -> int:
        """Handle of the thread pool, for other kernels; closed with this object."""
        pool: int = self._pool
        return pool

    def scratch(self, name: str, *shape: int) -> np.ndarray:
        """A scratch array that is reused by name; its contents are undefined."""
        size = math.prod(shape)
        if name not in self._buffers or len(self._buffers[name]) < size:
            self._buffers[name] = aligned(size)
        return self._buffers[name][:size].reshape(shape)

    def normalise(self, x: np.ndarray, norm: Norm, out: np.ndarray) -> None:
        """x [rows, D] -> out [rows, D], which may be x."""
        self._library.conure_normalise(self._pool, address(x), *x.shape, ctypes.byref(norm.struct), address(out))

    def quantise(self, x: np.ndarray, norm: Norm | None = None, *, gated: bool = False) -> Quantised:
        """x [rows, D], normalised, SiLU if `gated`, each row quantised to +-127. Valid until the next call."""
        rows, width = x.shape
        needed = (rows, rows * width)
        if any(size < need for size, need in zip(self._quantised.capacity, needed, strict=True)):
            self._quantised = Quantised(*map(max, self._quantised.capacity, needed))
        out, norm_struct = self._quantised, ctypes.byref((norm or NO_NORM).struct)
        self._library.conure_quantise(self._pool, address(x), rows, width, norm_struct, gated, ctypes.byref(out.struct))
        out.rows = rows
        return out

    def multiply(
        self, x: Quantised, weight: Weight, out: np.ndarray, epilogue: Epilogue = Epilogue.NOTHING
    ) -> np.ndarray:
        """-> out [rows, N], or [rows, N / 2] with Epilogue.GATE."""
        result = _Result(address(out), out.shape[1], epilogue)
        structs = ctypes.byref(x.struct), x.rows, ctypes.byref(weight.struct), ctypes.byref(result)
        self._library.conure_multiply(self._pool, *structs)
        return out

    def attend(
        self, parameters: Attention, rings: Rings, step: StreamStep, projected: np.ndarray, out: np.ndarray
    ) -> np.ndarray:
        """projected [B * C, 3 * h * d]: queries, keys and values -> out [B * C, h * d]."""
        structs = (ctypes.byref(part.struct) for part in (parameters, rings, step))
        self._library.conure_attend(self._pool, *structs, address(projected), address(out))
        return out

    def filter(
        self, parameters: Filter, memory: np.ndarray, step: StreamStep, x: np.ndarray, out: np.ndarray
    ) -> np.ndarray:
        """x [B * C, D] after the steps in `memory` [slots, ring, D], which is updated -> out [B * C, D]."""
        structs = (ctypes.byref(parameters.struct), address(memory), memory.shape[1], ctypes.byref(step.struct))
        self._library.conure_filter(self._pool, *structs, address(x), address(out))
        return out

    def attend_clips(self, parameters: Distances, clips: Clips, projected: np.ndarray, out: np.ndarray) -> np.ndarray:
        """projected [N, 3 * h * d]: queries, keys and values -> out [N, h * d]."""
        structs = (ctypes.byref(part.struct) for part in (parameters, clips))
        self._library.conure_attend_clips(self._pool, *structs, address(projected), address(out))
        return out

    def filter_clips(self, parameters: Filter, before: int, clips: Clips, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """x [N, D] -> out [N, D]; the filter of a step begins `before` steps before it."""
        structs = (ctypes.byref(part.struct) for part in (parameters, clips))
        self._library.conure_filter_clips(self._pool, *structs, before, address(x), address(out))
        return out

    def log_mel(self, mel: MelTables, samples: np.ndarray) -> np.ndarray:
        """samples [B, N], without padding -> [B, 1 + (N - 512) // hop, features]."""
        rows, size = samples.shape
        frames = 1 + (size - FFT_SIZE) // mel.hop
        out = aligned(rows, frames, mel.features)
        tables = ctypes.byref(mel.struct)
        self._library.conure_log_mel(self._pool, tables, address(samples), rows, size, frames, address(out))
        return out


def aligned(*shape: int, kind: type[np.generic] = np.float32) -> np.ndarray:
    """Zeros aligned to a cache line. NumPy aligns to 16 bytes only, so that vector loads would cross cache lines."""
    size = math.prod(shape) * np.dtype(kind).itemsize
    buffer = np.zeros(size + CACHE_LINE, np.uint8)
    begin = -buffer.ctypes.data % CACHE_LINE
    return buffer[begin : begin + size].view(kind).reshape(shape)


def pack(weight: np.ndarray) -> np.ndarray:
    """int8 weights [N, K] in the kernels' layout: [N / 64, K / 4, 64, 4] uint8, with 128 added."""
    columns, depth = weight.shape
    blocks = weight.reshape(columns // BLOCK, BLOCK, depth // QUAD, QUAD).transpose(0, 2, 1, 3)
    return np.ascontiguousarray((blocks.astype(np.int16) + OFFSET).astype(np.uint8))


@functools.cache
def has_native_kernels() -> bool:
    """Whether the kernels were built and this processor supports them."""
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
        "open_pool": (pointer, [c_int]),
        "close_pool": (None, [pointer]),
        "normalise": (None, [pointer, pointer, size, size, pointer, pointer]),
        "quantise": (None, [pointer, pointer, size, size, pointer, c_int, pointer]),
        "multiply": (None, [pointer, pointer, size, pointer, pointer]),
        "attend": (None, [pointer] * 6),
        "attend_clips": (None, [pointer] * 5),
        "filter_clips": (None, [pointer, pointer, pointer, size, pointer, pointer]),
        "log_mel": (None, [pointer, pointer, pointer, size, size, size, pointer]),
        "filter": (None, [pointer, pointer, pointer, size, pointer, pointer, pointer]),
        "open_decoder": (pointer, [pointer, pointer]),
        "close_decoder": (None, [pointer]),
        "decode": (None, [pointer] * 4),
        "label": (None, [pointer, pointer, size, c_float, pointer, size, size, pointer, pointer, pointer]),
        "subsample": (None, [pointer, pointer, pointer, size]),
        "detect_speech": (None, [pointer, pointer, size, size, pointer, pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"conure_{name}")
        function.restype, function.argtypes = result, arguments
    return library


def address(array: Any) -> int:
    """Address of a NumPy array. `from_buffer` is twice as fast, but needs a writable, nonempty array."""
    return addressof(c_char.from_buffer(array)) if array.flags.writeable and array.size else int(array.ctypes.data)
