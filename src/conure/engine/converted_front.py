"""What subsamples for a converted network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from conure.engine.kernel_front import KernelFront
from conure.models.config import EncoderConfig
from conure.native.library import available

__all__ = ["Front", "open_front"]


class Front(Protocol):
    """As `KernelFront` has it."""

    def clip(self, mel: np.ndarray, count: int) -> np.ndarray: ...

    def chunks(self, pieces: Sequence[tuple[int, np.ndarray]], chunk: int) -> np.ndarray: ...


def open_front(folder: Path, config: EncoderConfig, threads: int, *, kernels: bool = True) -> Front:
    """The native kernel; without kernels, or where there are none, the graph."""
    if kernels and available() and KernelFront.is_in(folder):
        return KernelFront(folder, config, threads)
    from conure.engine.graph_front import GraphFront  # noqa: PLC0415  it loads ONNX Runtime

    return GraphFront(folder, config, threads)
