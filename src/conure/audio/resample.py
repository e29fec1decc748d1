"""Resampling in blocks, with the same results as for the whole clip.

`n` samples at `from_rate` become `n * to_rate / from_rate`, rounded to the nearest integer, for any sizes of blocks.
The filter is soxr's "HQ".
"""

from __future__ import annotations

import numpy as np
import soxr  # type: ignore[import-untyped]
from numpy.typing import NDArray

__all__ = ["Resampler", "Samples"]

Samples = NDArray[np.float32]
"""float32 [channels, n]; full scale is 1."""


class Resampler:
    """Resampler of one stream. Push blocks in order, the last one (it may be empty) with `last=True`."""

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        self._stream = None if from_rate == to_rate else soxr.ResampleStream(from_rate, to_rate, channels)

    def push(self, block: Samples, last: bool = False) -> Samples:
        """[channels, n] -> [channels, m]; the filter delays some samples until the last block."""
        if self._stream is None:
            return block
        return np.ascontiguousarray(self._stream.resample_chunk(block.T, last).T)
