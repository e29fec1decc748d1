"""The streaming step of a converted network in ONNX Runtime.

The graph changes what is remembered of streams where it is (see `export_stream`), so that a turn costs what its
products cost, and the reading of the past that its rows see.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

from conure.engine.backends.cpu.onnx_session import open_session
from conure.engine.backends.cpu.onnx_stream_state import OnnxStreamState
from conure.engine.convert.graph_names import AFTER, STREAM_FILE
from conure.models.config import EncoderConfig

__all__ = ["OnnxStreamEncoder"]


class OnnxStreamEncoder:
    """Opens the graph of a converted folder."""

    def __init__(self, folder: Path, config: EncoderConfig, threads: int) -> None:
        self.config, self._step = config, open_session(folder / STREAM_FILE, threads)

    def allocate(self, rows: int) -> OnnxStreamState:
        return OnnxStreamState(self.config, rows)

    def encode(
        self,
        x: np.ndarray,
        memory: OnnxStreamState,
        rows: np.ndarray,
        counts: np.ndarray,
        prompts: np.ndarray | None,
    ) -> np.ndarray:
        """x [B * C, channels * bands] of rows [B] that each bring counts [B] steps -> [B * C, D]."""
        given = {"x": x, **dict(memory.places(rows, counts, len(x) // len(rows)))}
        if prompts is not None:
            given["prompts"] = prompts
        encoded = np.empty((len(x), self.config.width), np.float32)
        binding: Any = self._step.io_binding()
        for name, array in given.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, pool in memory.pools.items():
            binding.bind_ortvalue_input(name, pool)
            binding.bind_ortvalue_output(AFTER + name, pool)
        binding.bind_ortvalue_output("encoded", onnxruntime.OrtValue.ortvalue_from_numpy(encoded))
        self._step.run_with_iobinding(binding)
        return encoded
