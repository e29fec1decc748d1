"""The layers of an int8 encoder in native kernels, for rows that are steps of streams or of clips.

Attention and convolution differ between the two; a view implements them. Products quantise each row on its own, like
`Int8ByRow`, so that no row depends on the others.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from conure.engine.backends.cpu.int8_weights import Int8Weights
from conure.models.config import EncoderConfig
from conure.models.preemptible import Preemptible
from conure.native.library import Epilogue, Kernels, aligned

__all__ = ["NativeLayer", "NativeLayers", "NativeView"]

ROWS_PER_PART = 512
"""Rows that run through a feed-forward module together; its hidden layer is four times as wide."""


class NativeLayer:
    """The weights of a layer."""

    def __init__(self, weights: Int8Weights, index: int, config: EncoderConfig) -> None:
        names = ("feed_forward1", "self_att", "conv", "feed_forward2", "out")
        self.index = index
        self.norms = {name: weights.norm(f"{index}.norm_{name}") for name in names}
        self.up, self.down = (
            {name: weights.weight(f"{index}.{name}.{part}") for name in ("feed_forward1", "feed_forward2")}
            for part in ("up", "down")
        )
        self.projected, self.mixed = weights.weight(f"{index}.projected"), weights.weight(f"{index}.mixed")
        self.gated, self.filtered = weights.weight(f"{index}.gated"), weights.weight(f"{index}.filtered")
        self.filter = weights.filter(f"{index}.filter")
        norm = f"{index}.norm_filter"
        self.norm_filter = weights.norm(norm) if f"{norm}.weight" in weights else None


class NativeView(Protocol):
    """Attention and convolution over the steps of streams or of clips."""

    def attend(self, run: Kernels, layer: NativeLayer, projected: np.ndarray, out: np.ndarray) -> np.ndarray:
        """projected [N, 3 * h * d]: queries, keys and values -> out [N, h * d]."""
        ...

    def filter(self, run: Kernels, layer: NativeLayer, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Depthwise convolution of x [N, D] with the steps around each step -> out [N, D]."""
        ...


class NativeLayers:
    """The layers of a converted model, with a thread pool."""

    def __init__(self, weights: Int8Weights, config: EncoderConfig, threads: int) -> None:
        self.config, self._weights = config, weights
        self.kernels = Kernels(threads)
        self._subsampled = weights.weight("subsampled")
        self._layers = [NativeLayer(weights, index, config) for index in range(config.layers)]

    def run(self, x: np.ndarray, view: NativeView, prompts: np.ndarray | None = None) -> Preemptible[np.ndarray]:
        """x [N, channels * bands], language prompts [N] -> [N, D]; a slice is a layer."""
        y = self.kernels.multiply(self.kernels.quantise(x), self._subsampled, aligned(len(x), self.config.width))
        self._apply_speaker_kernels(y)
        for layer in self._layers:
            self._layer(layer, view, y)
            yield
        return y if prompts is None else self._apply_prompts(y, prompts)

    def _layer(self, layer: NativeLayer, view: NativeView, x: np.ndarray) -> None:
        self._feed_forward(layer, "feed_forward1", x)
        self._attend(layer, view, x)
        self._filter(layer, view, x)
        self._feed_forward(layer, "feed_forward2", x)
        self.kernels.normalise(x, layer.norms["out"], x)

    def _feed_forward(self, layer: NativeLayer, name: str, x: np.ndarray) -> None:
        run, up = self.kernels, layer.up[name]
        for begin in range(0, len(x), ROWS_PER_PART):
            part = x[begin : begin + ROWS_PER_PART]
            hidden = run.scratch("hidden", len(part), up.columns)
            run.multiply(run.quantise(part, layer.norms[name]), up, hidden, Epilogue.SILU)
            run.multiply(run.quantise(hidden), layer.down[name], part, Epilogue.ADD)

    def _attend(self, layer: NativeLayer, view: NativeView, x: np.ndarray) -> None:
        run = self.kernels
        projected = run.scratch("hidden", len(x), layer.projected.columns)
        run.multiply(run.quantise(x, layer.norms["self_att"]), layer.projected, projected)
        mixed = view.attend(run, layer, projected, run.scratch("mixed", *x.shape))
        run.multiply(run.quantise(mixed), layer.mixed, x, Epilogue.ADD)

    def _filter(self, layer: NativeLayer, view: NativeView, x: np.ndarray) -> None:
        run = self.kernels
        gated = run.scratch("mixed", *x.shape)
        run.multiply(run.quantise(x, layer.norms["conv"]), layer.gated, gated, Epilogue.GATE)
        filtered = view.filter(run, layer, gated, run.scratch("hidden", *x.shape))
        run.multiply(run.quantise(filtered, layer.norm_filter, gated=True), layer.filtered, x, Epilogue.ADD)

    def _apply_speaker_kernels(self, x: np.ndarray) -> None:
        """Speaker kernels for a single speaker: see `LayerWriter.apply_speaker_kernels`."""
        if "silence" not in self._weights:
            return
        run, up, down = self.kernels, *(self._weights.weight(f"wanted.{part}") for part in ("up", "down"))
        hidden = run.multiply(run.quantise(x), up, run.scratch("hidden", len(x), up.columns), Epilogue.RELU)
        run.multiply(run.quantise(hidden), down, x, Epilogue.ADD)
        x += self._weights.array("silence")

    def _apply_prompts(self, x: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        run, up, down = self.kernels, *(self._weights.weight(f"prompt.{part}") for part in ("up", "down"))
        hidden = run.multiply(run.quantise(x), up, run.scratch("hidden", len(x), up.columns))
        np.maximum(hidden + self._weights.array("prompt.table")[prompts], 0, out=hidden)
        return run.multiply(run.quantise(hidden), down, aligned(*x.shape))
