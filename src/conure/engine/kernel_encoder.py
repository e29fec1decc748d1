"""The streaming step of an int8 network in native kernels: what `export_stream` writes as a graph, done by hand.

Products quantise their rows as `Int8ByRow` does. Keys and values are kept in half precision and read where they
are: nothing is gathered, and a turn reads half as much.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conure.engine.heard import Heard
from conure.engine.packed import Packed
from conure.models.config import EncoderConfig
from conure.native.library import After, Kernels, Rings, Turn, aligned

__all__ = ["KernelEncoder", "KernelMemory"]


class KernelMemory(Heard):
    """What is remembered of live streams: of each layer, rings of keys and values and of what the filter saw."""

    def __init__(self, config: EncoderConfig, rows: int) -> None:
        super().__init__(config, rows)
        steps, chunk = config.longest_past, config.longest_chunk
        sizes = (rows, config.heads, config.width // config.heads, steps + chunk)
        self.rings = [Rings(*sizes) for _ in range(config.layers)]
        width = (rows, config.kernel - 1 + chunk, config.width)
        self.filtered = [aligned(*width) for _ in range(config.layers)]

    @property
    def bytes(self) -> int:
        rings = sum(ring.keys.nbytes + ring.values.nbytes for ring in self.rings)
        return super().bytes + rings + sum(array.nbytes for array in self.filtered)


class Layer:
    """The weights of a layer."""

    def __init__(self, packed: Packed, index: int, config: EncoderConfig) -> None:
        names = ("feed_forward1", "self_att", "conv", "feed_forward2", "out")
        self.norms = {name: packed.norm(f"{index}.norm_{name}") for name in names}
        self.up, self.down = (
            {name: packed.weight(f"{index}.{name}.{part}") for name in ("feed_forward1", "feed_forward2")}
            for part in ("up", "down")
        )
        self.projected, self.mixed = packed.weight(f"{index}.projected"), packed.weight(f"{index}.mixed")
        self.attention = packed.attention(f"{index}.attention", config)
        self.gated, self.filtered = packed.weight(f"{index}.gated"), packed.weight(f"{index}.filtered")
        self.filter = packed.filter(f"{index}.filter")
        norm = f"{index}.norm_filter"
        self.norm_filter = packed.norm(norm) if f"{norm}.weight" in packed else None


class KernelEncoder:
    """Opens the packed weights of a converted folder."""

    def __init__(self, folder: Path, config: EncoderConfig, threads: int) -> None:
        self.config, self._packed = config, Packed(folder)
        self._kernels = Kernels(threads)
        self._subsampled = self._packed.weight("subsampled")
        self._layers = [Layer(self._packed, index, config) for index in range(config.layers)]

    def allocate(self, rows: int) -> KernelMemory:
        return KernelMemory(self.config, rows)

    def encode(
        self,
        x: np.ndarray,
        memory: KernelMemory,
        rows: np.ndarray,
        counts: np.ndarray,
        prompts: np.ndarray | None,
    ) -> np.ndarray:
        """x [B * C, channels * bands] of rows [B] that each bring counts [B] steps -> [B * C, D]."""
        run = self._kernels
        turn = Turn(rows, memory.age[rows], counts, len(x) // len(rows))
        y = run.multiply(run.quantise(x), self._subsampled, aligned(len(x), self.config.width))
        self._hear_one(y)
        for index, layer in enumerate(self._layers):
            self._feed_forward(layer, "feed_forward1", y)
            self._attend(layer, memory.rings[index], turn, y)
            self._filter(layer, memory.filtered[index], turn, y)
            self._feed_forward(layer, "feed_forward2", y)
            run.normalise(y, layer.norms["out"], y)
        return y if prompts is None else self._prompted(y, prompts)

    def _feed_forward(self, layer: Layer, name: str, x: np.ndarray) -> None:
        run, up = self._kernels, layer.up[name]
        hidden = run.room("hidden", len(x), up.columns)
        run.multiply(run.quantise(x, layer.norms[name]), up, hidden, After.SILU)
        run.multiply(run.quantise(hidden), layer.down[name], x, After.ADD)

    def _attend(self, layer: Layer, rings: Rings, turn: Turn, x: np.ndarray) -> None:
        run = self._kernels
        projected = run.room("hidden", len(x), layer.projected.columns)
        run.multiply(run.quantise(x, layer.norms["self_att"]), layer.projected, projected)
        mixed = run.attend(layer.attention, rings, turn, projected, run.room("mixed", *x.shape))
        run.multiply(run.quantise(mixed), layer.mixed, x, After.ADD)

    def _filter(self, layer: Layer, memory: np.ndarray, turn: Turn, x: np.ndarray) -> None:
        run = self._kernels
        gated = run.room("mixed", *x.shape)
        run.multiply(run.quantise(x, layer.norms["conv"]), layer.gated, gated, After.GATE)
        filtered = run.filter(layer.filter, memory, turn, gated, run.room("hidden", *x.shape))
        run.multiply(run.quantise(filtered, layer.norm_filter, gated=True), layer.filtered, x, After.ADD)

    def _hear_one(self, x: np.ndarray) -> None:
        """One speaker alone: see `LayerWriter.hear_one`."""
        if "silence" not in self._packed:
            return
        run, up, down = self._kernels, *(self._packed.weight(f"wanted.{part}") for part in ("up", "down"))
        hidden = run.multiply(run.quantise(x), up, run.room("hidden", len(x), up.columns), After.RELU)
        run.multiply(run.quantise(hidden), down, x, After.ADD)
        x += self._packed.array("silence")

    def _prompted(self, x: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        run, up, down = self._kernels, *(self._packed.weight(f"prompt.{part}") for part in ("up", "down"))
        hidden = run.multiply(run.quantise(x), up, run.room("hidden", len(x), up.columns))
        np.maximum(hidden + self._packed.array("prompt.table")[prompts], 0, out=hidden)
        return run.multiply(run.quantise(hidden), down, aligned(*x.shape))
