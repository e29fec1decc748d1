"""The encoder of a converted network for whole clips in ONNX Runtime, one clip after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conure.engine.backends.cpu.onnx_session import open_session
from conure.engine.backends.positions import position_tables
from conure.engine.convert.converted_folder import ConvertedModel
from conure.engine.convert.graph_names import AROUND, ENCODER_FILE, REACH, around
from conure.models.config import AttentionContext
from conure.models.preemptible import Preemptible

__all__ = ["OnnxClipEncoder"]


class OnnxClipEncoder:
    """Opens the graph of a converted folder."""

    def __init__(self, converted: ConvertedModel, threads: int) -> None:
        self.config = converted.checkpoint.config
        self.session = open_session(converted.folder / ENCODER_FILE, threads)
        self._positions = _LongPositions(converted)

    def encode(
        self,
        x: np.ndarray,
        counts: Sequence[int],
        prompts: np.ndarray | None = None,
        context: AttentionContext | None = None,
    ) -> Preemptible[np.ndarray]:
        """As `KernelClips.encode` has it; a slice is a clip."""
        encoded, begin = [], 0
        for index, count in enumerate(counts):
            if index:
                yield
            given = {"x": x[None, begin : begin + count]} | self._positions.beyond(count)
            if prompts is not None:
                given["prompts"] = prompts[index : index + 1]
            if context is not None:
                given[AROUND] = around(context)
            encoded.append(self.session.run(["encoded"], given)[0][0])
            begin += count
        return np.concatenate(encoded)


class _LongPositions:
    """Tables for clips longer than those of the graph reach; the last are kept."""

    def __init__(self, converted: ConvertedModel) -> None:
        self.converted = converted
        self.tables: dict[str, np.ndarray] = {}
        self.reach = REACH

    def beyond(self, steps: int) -> dict[str, np.ndarray]:
        """Empty where those of the graph do."""
        encoder = self.converted.checkpoint.config.encoder
        if encoder.local or steps <= REACH:
            return {}
        if steps > self.reach or not self.tables:
            self.reach = 1 << (steps - 1).bit_length()
            self.tables = {}
            for index, weight in enumerate(self.converted.position_weights()):
                kept = position_tables(self.converted.levels, weight, encoder.heads, self.reach)
                self.tables |= {f"{name}.{index}": table for name, table in kept.items()}
        return self.tables
