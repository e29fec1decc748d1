"""The streaming encoder of an int8 network in native kernels, equivalent to the graph of `convert/stream_graph.py`.

Keys and values are stored in float16 and read in place: nothing is gathered, and a step reads half as many bytes.
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
from conure.native.library import Attention, Kernels, Rings, StreamStep, aligned

__all__ = ["NativeStreamEncoder", "NativeStreamState"]


class NativeStreamState(SubsamplingState):
    """Encoder state by slot: rings of keys, values and convolution inputs of each layer."""

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
    """Opens the int8 weights of a converted model."""

    def __init__(self, folder: Path, config: EncoderConfig, threads: int) -> None:
        self.config, packed = config, Int8Weights(folder)
        self.layers = NativeLayers(packed, config, threads)
        self._attentions = [packed.attention(f"{index}.attention", config) for index in range(config.layers)]

    def allocate(self, rows: int) -> NativeStreamState:
        return NativeStreamState(self.config, rows)

    def encode(
        self,
        x: np.ndarray,
        state: NativeStreamState,
        rows: np.ndarray,
        counts: np.ndarray,
        prompts: np.ndarray | None,
    ) -> np.ndarray:
        """x [B * C, channels * bands] of slots `rows` [B] with `counts` [B] valid steps -> [B * C, D]."""
        step = StreamStep(rows, state.age[rows], counts, len(x) // len(rows))
        return run_to_end(self.layers.run(x, _StreamView(self._attentions, state, step), prompts))


@dataclass(frozen=True)
class _StreamView:
    """Attention and convolution over a chunk and the state of its slot."""

    attentions: list[Attention]
    state: NativeStreamState
    step: StreamStep

    def attend(self, run: Kernels, layer: NativeLayer, projected: np.ndarray, out: np.ndarray) -> np.ndarray:
        return run.attend(self.attentions[layer.index], self.state.rings[layer.index], self.step, projected, out)

    def filter(self, run: Kernels, layer: NativeLayer, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        return run.filter(layer.filter, self.state.filtered[layer.index], self.step, x, out)
