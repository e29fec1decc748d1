"""Selects the subsampling of a converted network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from conure.engine.backends.cpu.native_subsampling import NativeSubsampling
from conure.models.config import EncoderConfig
from conure.native.library import has_native_kernels

__all__ = ["CpuSubsampling", "open_subsampling"]


class CpuSubsampling(Protocol):
    """Interface of the implementations; see `NativeSubsampling`."""

    def subsample_clip(self, mel: np.ndarray, count: int) -> np.ndarray: ...

    def subsample_chunks(self, pieces: Sequence[tuple[int, np.ndarray]], chunk: int) -> np.ndarray: ...


def open_subsampling(folder: Path, config: EncoderConfig, threads: int, *, kernels: bool = True) -> CpuSubsampling:
    """The native kernel; without `kernels` or if it is not available, the graph in ONNX Runtime."""
    if kernels and has_native_kernels() and NativeSubsampling.exists_in(folder):
        return NativeSubsampling(folder, config, threads)
    from conure.engine.backends.cpu.onnx_subsampling import OnnxSubsampling  # noqa: PLC0415  it loads ONNX Runtime

    return OnnxSubsampling(folder, config, threads)
