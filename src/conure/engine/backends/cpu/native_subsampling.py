"""Subsampling in the native kernel: clips in spans, chunks of streams after the last frames of the previous chunk.

A chunk recomputes only what its new steps need of those frames: five frames of the second convolution for two new
steps, instead of eight.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from conure.engine.convert.array_file import ArrayFile
from conure.models.config import EncoderConfig
from conure.native.float_matmul import FloatMatrix
from conure.native.library import Kernels, Weight
from conure.native.subsampling_kernel import Pointwise, Span, Stride, SubsamplingKernel

__all__ = ["NATIVE_SUBSAMPLING_FILE", "POINTWISE_LAYERS", "STRIDED_LAYERS", "NativeSubsampling"]

NATIVE_SUBSAMPLING_FILE = "front.packed"
STRIDED_LAYERS, POINTWISE_LAYERS = (0, 2, 5), (3, 6)
"""Indices of the strided and the pointwise convolutions in `Subsampling.conv`."""

SPAN_STEPS = 16
"""Encoder steps (1.3 s) of one task."""


class NativeSubsampling:
    """Opens the weights that `write_subsampling` has written."""

    def __init__(self, folder: Path, config: EncoderConfig, threads: int) -> None:
        """Raises OSError if they do not exist."""
        weights = ArrayFile(folder / NATIVE_SUBSAMPLING_FILE)
        strides = [Stride(weights.array(f"{layer}.weight"), weights.array(f"{layer}.bias")) for layer in STRIDED_LAYERS]
        pointwise = [Pointwise(_read_product(weights, str(layer))) for layer in POINTWISE_LAYERS]
        self._lead = 2 if config.causal_subsampling else 1
        self._kernel = SubsamplingKernel(strides, pointwise, config.features, config.channels, self._lead)
        self._kernels = Kernels(threads)
        self.width = config.channels * self._subsampled_size(config.features)
        """Width of a step: channels * bands."""

    @staticmethod
    def exists_in(folder: Path) -> bool:
        return ArrayFile.exists(folder / NATIVE_SUBSAMPLING_FILE)

    def subsample_clip(self, mel: np.ndarray, count: int) -> np.ndarray:
        """mel [T, F] -> its first `count` steps [count, channels * bands]."""
        mel, x = np.ascontiguousarray(mel), np.empty((count, self.width), np.float32)
        spans = [Span(mel, begin, x[begin : begin + SPAN_STEPS]) for begin in range(0, count, SPAN_STEPS)]
        self._kernel.subsample(self._kernels, spans)
        return x

    def subsample_chunks(self, pieces: Sequence[tuple[int, np.ndarray]], chunk: int) -> np.ndarray:
        """Pieces: the number of overlapping steps, and mel [T, F] -> new steps [B, chunk, channels * bands].

        Zeros follow the last step of a piece.
        """
        x = np.zeros((len(pieces), chunk, self.width), np.float32)
        spans = [
            Span(mel, overlap, row[: self._subsampled_size(len(mel)) - overlap])
            for (overlap, mel), row in zip(pieces, x, strict=True)
        ]
        self._kernel.subsample(self._kernels, spans)
        return x

    def _subsampled_size(self, size: int) -> int:
        """Number of frames or bands after three convolutions."""
        for _ in range(3):
            size = (size + self._lead) // 2
        return size


def _read_product(weights: ArrayFile, name: str) -> FloatMatrix | Weight:
    values, bias = weights.array(f"{name}.values"), weights.array(f"{name}.bias")
    return (
        Weight(values, weights.array(f"{name}.scales"), bias)
        if f"{name}.scales" in weights
        else FloatMatrix(values, bias)
    )
