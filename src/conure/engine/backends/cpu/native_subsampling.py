"""Subsamples in the native kernel: clips in spans, chunks of streams behind the last frames of the chunk before.

What a chunk needs of those frames is made again, as far as it needs it: five frames of the second convolution where two
steps are new, and not eight.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from conure.engine.convert.array_file import ArrayFile
from conure.models.config import EncoderConfig
from conure.native.float_matmul import FloatMatrix
from conure.native.library import Kernels, Weight
from conure.native.subsampling_kernel import Mix, Span, Stride, SubsamplingKernel

__all__ = ["FRONT_PACKED", "MIXES", "STRIDES", "NativeSubsampling"]

FRONT_PACKED = "front.packed"
STRIDES, MIXES = (0, 2, 5), (3, 6)
"""Of the subsampling's layers."""

SPAN_STEPS = 16
"""Encoder steps (1.3 s) that a thread takes at a time."""


class NativeSubsampling:
    """Opens what `write_front` wrote."""

    def __init__(self, folder: Path, config: EncoderConfig, threads: int) -> None:
        """Raises OSError where there is nothing."""
        packed = ArrayFile(folder / FRONT_PACKED)
        strides = [Stride(packed.array(f"{layer}.weight"), packed.array(f"{layer}.bias")) for layer in STRIDES]
        mixes = [Mix(_product(packed, str(layer))) for layer in MIXES]
        self._lead = 2 if config.causal_subsampling else 1
        self._kernel = SubsamplingKernel(strides, mixes, config.features, config.channels, self._lead)
        self._kernels = Kernels(threads)
        self.width = config.channels * self._halved(config.features)
        """Of a step: channels times bands."""

    @staticmethod
    def is_in(folder: Path) -> bool:
        return ArrayFile.are_in(folder / FRONT_PACKED)

    def clip(self, mel: np.ndarray, count: int) -> np.ndarray:
        """mel [T, F] -> its first `count` steps [count, channels * bands]."""
        mel, x = np.ascontiguousarray(mel), np.empty((count, self.width), np.float32)
        spans = [Span(mel, begin, x[begin : begin + SPAN_STEPS]) for begin in range(0, count, SPAN_STEPS)]
        self._kernel.subsample(self._kernels, spans)
        return x

    def chunks(self, pieces: Sequence[tuple[int, np.ndarray]], chunk: int) -> np.ndarray:
        """How many steps of each piece are old, and its mel [T, F] -> the new ones [B, chunk, channels * bands].

        Zeros follow the last step of a piece.
        """
        x = np.zeros((len(pieces), chunk, self.width), np.float32)
        spans = [
            Span(mel, lost, row[: self._halved(len(mel)) - lost]) for (lost, mel), row in zip(pieces, x, strict=True)
        ]
        self._kernel.subsample(self._kernels, spans)
        return x

    def _halved(self, size: int) -> int:
        """Frames or bands after three convolutions."""
        for _ in range(3):
            size = (size + self._lead) // 2
        return size


def _product(packed: ArrayFile, name: str) -> FloatMatrix | Weight:
    values, bias = packed.array(f"{name}.values"), packed.array(f"{name}.bias")
    return (
        Weight(values, packed.array(f"{name}.scales"), bias)
        if f"{name}.scales" in packed
        else FloatMatrix(values, bias)
    )
