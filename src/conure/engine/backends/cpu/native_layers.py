"""The layers of an int8 encoder in native kernels, for rows that are steps of streams or of clips.

What differs between the two is whom a step attends to and what stands beside it where it is filtered: a view does that.
Products quantise their rows as `Int8ByRow` does, so that no row depends on another one.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from conure.engine.backends.cpu.int8_weights import Int8Weights
from conure.models.config import EncoderConfig
from conure.models.preemptible import Preemptible
from conure.native.library import After, Kernels, aligned

__all__ = ["NativeLayer", "NativeLayers", "NativeView"]

PART = 512
"""Rows that pass through a feed-forward module together: what it takes in between is four times as wide."""


class NativeLayer:
    """The weights of a layer."""

    def __init__(self, packed: Int8Weights, index: int, config: EncoderConfig) -> None:
        names = ("feed_forward1", "self_att", "conv", "feed_forward2", "out")
        self.index = index
        self.norms = {name: packed.norm(f"{index}.norm_{name}") for name in names}
        self.up, self.down = (
            {name: packed.weight(f"{index}.{name}.{part}") for name in ("feed_forward1", "feed_forward2")}
            for part in ("up", "down")
        )
        self.projected, self.mixed = packed.weight(f"{index}.projected"), packed.weight(f"{index}.mixed")
        self.gated, self.filtered = packed.weight(f"{index}.gated"), packed.weight(f"{index}.filtered")
        self.filter = packed.filter(f"{index}.filter")
        norm = f"{index}.norm_filter"
        self.norm_filter = packed.norm(norm) if f"{norm}.weight" in packed else None


class NativeView(Protocol):
    """Who sees whom in a turn, or in some clips."""

    def attend(self, run: Kernels, layer: NativeLayer, projected: np.ndarray, out: np.ndarray) -> np.ndarray:
        """projected [N, 3 * h * d] are queries, keys, values; -> out [N, h * d]."""
        ...

    def filter(self, run: Kernels, layer: NativeLayer, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """x [N, D] with what is beside it -> out [N, D]."""
        ...


class NativeLayers:
    """Opens the packed weights of a converted folder; threads are shared by all that runs on them."""

    def __init__(self, packed: Int8Weights, config: EncoderConfig, threads: int) -> None:
        self.config, self._packed = config, packed
        self.kernels = Kernels(threads)
        self._subsampled = packed.weight("subsampled")
        self._layers = [NativeLayer(packed, index, config) for index in range(config.layers)]

    def run(self, x: np.ndarray, view: NativeView, prompts: np.ndarray | None = None) -> Preemptible[np.ndarray]:
        """x [N, channels * bands], prompt slots [N] -> [N, D]; a slice is a layer."""
        y = self.kernels.multiply(self.kernels.quantise(x), self._subsampled, aligned(len(x), self.config.width))
        self._hear_one(y)
        for layer in self._layers:
            self._layer(layer, view, y)
            yield
        return y if prompts is None else self._prompted(y, prompts)

    def _layer(self, layer: NativeLayer, view: NativeView, x: np.ndarray) -> None:
        self._feed_forward(layer, "feed_forward1", x)
        self._attend(layer, view, x)
        self._filter(layer, view, x)
        self._feed_forward(layer, "feed_forward2", x)
        self.kernels.normalise(x, layer.norms["out"], x)

    def _feed_forward(self, layer: NativeLayer, name: str, x: np.ndarray) -> None:
        run, up = self.kernels, layer.up[name]
        for begin in range(0, len(x), PART):
            part = x[begin : begin + PART]
            hidden = run.room("hidden", len(part), up.columns)
            run.multiply(run.quantise(part, layer.norms[name]), up, hidden, After.SILU)
            run.multiply(run.quantise(hidden), layer.down[name], part, After.ADD)

    def _attend(self, layer: NativeLayer, view: NativeView, x: np.ndarray) -> None:
        run = self.kernels
        projected = run.room("hidden", len(x), layer.projected.columns)
        run.multiply(run.quantise(x, layer.norms["self_att"]), layer.projected, projected)
        mixed = view.attend(run, layer, projected, run.room("mixed", *x.shape))
        run.multiply(run.quantise(mixed), layer.mixed, x, After.ADD)

    def _filter(self, layer: NativeLayer, view: NativeView, x: np.ndarray) -> None:
        run = self.kernels
        gated = run.room("mixed", *x.shape)
        run.multiply(run.quantise(x, layer.norms["conv"]), layer.gated, gated, After.GATE)
        filtered = view.filter(run, layer, gated, run.room("hidden", *x.shape))
        run.multiply(run.quantise(filtered, layer.norm_filter, gated=True), layer.filtered, x, After.ADD)

    def _hear_one(self, x: np.ndarray) -> None:
        """One speaker alone: see `LayerWriter.hear_one`."""
        if "silence" not in self._packed:
            return
        run, up, down = self.kernels, *(self._packed.weight(f"wanted.{part}") for part in ("up", "down"))
        hidden = run.multiply(run.quantise(x), up, run.room("hidden", len(x), up.columns), After.RELU)
        run.multiply(run.quantise(hidden), down, x, After.ADD)
        x += self._packed.array("silence")

    def _prompted(self, x: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        run, up, down = self.kernels, *(self._packed.weight(f"prompt.{part}") for part in ("up", "down"))
        hidden = run.multiply(run.quantise(x), up, run.room("hidden", len(x), up.columns))
        np.maximum(hidden + self._packed.array("prompt.table")[prompts], 0, out=hidden)
        return run.multiply(run.quantise(hidden), down, aligned(*x.shape))
