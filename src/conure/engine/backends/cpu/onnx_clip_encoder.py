"""The encoder of a converted network for clips in ONNX Runtime, one clip at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conure.engine.backends.cpu.onnx_session import open_session
from conure.engine.backends.positions import position_tables
from conure.engine.convert.converted_folder import ConvertedModel
from conure.engine.convert.graph_names import CONTEXT_INPUT, ENCODER_FILE, REACH, context_values
from conure.models.config import AttentionContext
from conure.models.preemptible import Preemptible

__all__ = ["OnnxClipEncoder"]


class OnnxClipEncoder:
    """Opens the graph of a converted model."""

    def __init__(self, converted: ConvertedModel, threads: int) -> None:
        self.config = converted.checkpoint.config
        self.session = open_session(converted.folder / ENCODER_FILE, threads)
        self._positions = _LongPositionTables(converted)

    def encode(
        self,
        x: np.ndarray,
        counts: Sequence[int],
        prompts: np.ndarray | None = None,
        context: AttentionContext | None = None,
    ) -> Preemptible[np.ndarray]:
        """Like `NativeClipEncoder.encode`; a slice is a clip."""
        encoded, begin = [], 0
        for index, count in enumerate(counts):
            if index:
                yield
            inputs = {"x": x[None, begin : begin + count]} | self._positions.inputs_for(count)
            if prompts is not None:
                inputs["prompts"] = prompts[index : index + 1]
            if context is not None:
                inputs[CONTEXT_INPUT] = context_values(context)
            encoded.append(self.session.run(["encoded"], inputs)[0][0])
            begin += count
        return np.concatenate(encoded)


class _LongPositionTables:
    """Distance tables for clips that are longer than the graph's tables; the longest ones are cached."""

    def __init__(self, converted: ConvertedModel) -> None:
        self.converted = converted
        self.tables: dict[str, np.ndarray] = {}
        self.reach = REACH

    def inputs_for(self, steps: int) -> dict[str, np.ndarray]:
        """Graph inputs for a clip of `steps` steps; empty if the graph's tables are long enough."""
        encoder = self.converted.checkpoint.config.encoder
        if encoder.local or steps <= REACH:
            return {}
        if steps > self.reach or not self.tables:
            self.reach = 1 << (steps - 1).bit_length()
            self.tables = {}
            for index, weight in enumerate(self.converted.position_weights()):
                layer_tables = position_tables(self.converted.levels, weight, encoder.heads, self.reach)
                self.tables |= {f"{name}.{index}": table for name, table in layer_tables.items()}
        return self.tables
