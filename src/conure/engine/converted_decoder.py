"""What decodes the steps of a converted network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conure.engine.clip_decoder import PlainDecoder, StreamDecoder
from conure.engine.kernel_decoder import KernelDecoder
from conure.models.network import Heads
from conure.native.library import available

__all__ = ["open_decoder"]


def open_decoder(heads: Heads, folder: Path, threads: int, *, kernels: bool = True) -> StreamDecoder[Any]:
    """Native kernels; without them, or where there are none, the loop in torch over heads in ONNX Runtime."""
    if kernels and available() and KernelDecoder.is_in(folder):
        return KernelDecoder(folder, heads.config, threads)
    return PlainDecoder(heads)
