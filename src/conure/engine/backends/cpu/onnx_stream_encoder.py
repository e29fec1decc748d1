"""The streaming encoder of a converted network in ONNX Runtime.

The graph updates the state of streams in place (see `convert/stream_graph.py`), so that a step costs only its products
and reading the visible past of its rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

from conure.engine.backends.cpu.onnx_session import open_session
from conure.engine.backends.cpu.onnx_stream_state import OnnxStreamState
from conure.engine.convert.graph_names import STREAM_FILE, UPDATED_PREFIX
from conure.models.config import EncoderConfig

__all__ = ["OnnxStreamEncoder"]


class OnnxStreamEncoder:
    """Opens the graph of a converted model."""

    def __init__(self, folder: Path, config: EncoderConfig, threads: int) -> None:
        self.config, self._step = config, open_session(folder / STREAM_FILE, threads)

    def allocate(self, rows: int) -> OnnxStreamState:
        return OnnxStreamState(self.config, rows)

    def encode(
        self,
        x: np.ndarray,
        state: OnnxStreamState,
        rows: np.ndarray,
        counts: np.ndarray,
        prompts: np.ndarray | None,
    ) -> np.ndarray:
        """x [B * C, channels * bands] of slots `rows` [B] with `counts` [B] valid steps -> [B * C, D]."""
        inputs = {"x": x, **dict(state.graph_inputs(rows, counts, len(x) // len(rows)))}
        if prompts is not None:
            inputs["prompts"] = prompts
        encoded = np.empty((len(x), self.config.width), np.float32)
        binding: Any = self._step.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, pool in state.pools.items():
            binding.bind_ortvalue_input(name, pool)
            binding.bind_ortvalue_output(UPDATED_PREFIX + name, pool)
        binding.bind_ortvalue_output("encoded", onnxruntime.OrtValue.ortvalue_from_numpy(encoded))
        self._step.run_with_iobinding(binding)
        return encoded
