"""The streaming step of an int8 network in native kernels: what `export_stream` writes as a graph, done by hand.

Keys and values are kept in half precision and read where they are: nothing is gathered, and a turn reads half as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conure.engine.backends.cpu.int8_weights import Int8Weights
from conure.engine.backends.cpu.native_layers import NativeLayer, NativeLayers
from conure.engine.backends.cpu.subsampling_state import SubsamplingState
from conure.models.config import EncoderConfig
from conure.models.preemptible import run_to_end
from conure.native.library import Attention, Kernels, Rings, StepStruct, aligned

__all__ = ["NativeStreamEncoder", "NativeStreamState"]


class NativeStreamState(SubsamplingState):
    """What is remembered of live streams: of each layer, rings of keys and values and of what the filter saw."""

    def __init__(self, config: EncoderConfig, rows: int) -> None:
        super().__init__(config, rows)
        steps, chunk = config.max_past, config.max_chunk
        sizes = (rows, config.heads, config.width // config.heads, steps + chunk)
        self.rings = [Rings(*sizes) for _ in range(config.layers)]
        width = (rows, config.kernel - 1 + chunk, config.width)
        self.filtered = [aligned(*width) for _ in range(config.layers)]

    @property
    def bytes(self) -> int:
        rings = sum(ring.keys.nbytes + ring.values.nbytes for ring in self.rings)
        return super().bytes + rings + sum(array.nbytes for array in self.filtered)


class NativeStreamEncoder:
    """Opens the packed weights of a converted folder."""

    def __init__(self, folder: Path, config: EncoderConfig, threads: int) -> None:
        self.config, packed = config, Int8Weights(folder)
        self.layers = NativeLayers(packed, config, threads)
        self._attentions = [packed.attention(f"{index}.attention", config) for index in range(config.layers)]

    def allocate(self, rows: int) -> NativeStreamState:
        return NativeStreamState(self.config, rows)

    def encode(
        self,
        x: np.ndarray,
        memory: NativeStreamState,
        rows: np.ndarray,
        counts: np.ndarray,
        prompts: np.ndarray | None,
    ) -> np.ndarray:
        """x [B * C, channels * bands] of rows [B] that each bring counts [B] steps -> [B * C, D]."""
        turn = StepStruct(rows, memory.age[rows], counts, len(x) // len(rows))
        return run_to_end(self.layers.run(x, _Chunks(self._attentions, memory, turn), prompts))


@dataclass(frozen=True)
class _Chunks:
    """A step sees its chunk and what its row remembers."""

    attentions: list[Attention]
    memory: NativeStreamState
    turn: StepStruct

    def attend(self, run: Kernels, layer: NativeLayer, projected: np.ndarray, out: np.ndarray) -> np.ndarray:
        return run.attend(self.attentions[layer.index], self.memory.rings[layer.index], self.turn, projected, out)

    def filter(self, run: Kernels, layer: NativeLayer, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        return run.filter(layer.filter, self.memory.filtered[layer.index], self.turn, x, out)
