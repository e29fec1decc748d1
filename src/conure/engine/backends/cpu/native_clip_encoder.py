"""The encoder of an int8 network for whole clips in native kernels: what `export` writes as a graph, done by hand.

Steps of some clips lie one after another, without padding, so that short clips are multiplied as fast as long ones.
Each step sees a stretch of its clip, whatever the network's style of attention.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conure.engine.backends.cpu.int8_weights import Int8Weights
from conure.engine.backends.cpu.native_global_attention import GlobalSteps
from conure.engine.backends.cpu.native_layers import NativeLayer, NativeLayers
from conure.engine.convert.graph_names import REACH
from conure.models.config import LONG_CONTEXT, MAX_FULL_ATTENTION_STEPS, AttentionContext, EncoderConfig
from conure.models.preemptible import Preemptible
from conure.native.library import Clips, Distances, Kernels

__all__ = ["NativeClipEncoder", "seen"]


class NativeClipEncoder:
    """Opens the packed weights of a converted folder."""

    def __init__(self, packed: Int8Weights, config: EncoderConfig, threads: int) -> None:
        self.config, self._packed = config, packed
        self.layers = NativeLayers(packed, config, threads)
        self._near = self._far = self._of(REACH)

    def encode(
        self,
        x: np.ndarray,
        counts: Sequence[int],
        prompts: np.ndarray | None = None,
        context: AttentionContext | None = None,
    ) -> Preemptible[np.ndarray]:
        """x [N, channels * bands] of clips of counts [C] steps, prompt slots [C] -> [N, D]; a slice is a layer.

        A context is given for networks alone that may take one from clip to clip.
        """
        context = context or self.config.contexts[0]
        edges = [seen(count, self.config, context) for count in counts]
        first, end = (np.concatenate(side) for side in zip(*edges, strict=True))
        distances = self._reaching(edges)
        if self.config.local and self.config.global_tokens:
            steps = GlobalSteps(counts, self.config)
            clips = Clips(np.array(counts), first, end, steps.places, steps.scores)
            view: _Wholes = _WithGlobalSteps(distances, clips, self._before, steps, self._biases)
        else:
            view = _Wholes(distances, Clips(np.array(counts), first, end), self._before)
        told = None if prompts is None else np.repeat(prompts, counts)
        return (yield from self.layers.run(x, view, told))

    @property
    def _before(self) -> int:
        """Steps that the filter sees before each."""
        reach = self.config.kernel - 1
        return reach if self.config.causal_convolution else reach // 2

    def _reaching(self, edges: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Distances]:
        """The tables of all layers, for as far as any step sees; the farthest are kept."""
        steps = max(_farthest(first, end) for first, end in edges)
        if steps <= REACH:
            return self._near
        if steps > self._far[0].reach:
            self._far = self._of(steps)
        return self._far

    def _of(self, steps: int) -> list[Distances]:
        heads, layers = self.config.heads, range(self.config.layers)
        return [self._packed.distances(f"{index}.attention", heads, steps) for index in layers]

    @functools.cached_property
    def _biases(self) -> list[np.ndarray]:
        """Of each layer what is in its queries for keys."""
        return [self._packed.array(f"{index}.attention.bias") for index in range(self.config.layers)]


@dataclass(frozen=True)
class _Wholes:
    """A step sees its clip, or a part of it."""

    distances: list[Distances]
    clips: Clips
    before: int

    def attend(self, run: Kernels, layer: NativeLayer, projected: np.ndarray, out: np.ndarray) -> np.ndarray:
        return run.attend_clips(self.distances[layer.index], self.clips, projected, out)

    def filter(self, run: Kernels, layer: NativeLayer, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        return run.filter_clips(layer.filter, self.before, self.clips, x, out)


@dataclass(frozen=True)
class _WithGlobalSteps(_Wholes):
    """It sees some steps of its clip beside that, and these see all of it."""

    steps: GlobalSteps
    biases: list[np.ndarray]

    def attend(self, run: Kernels, layer: NativeLayer, projected: np.ndarray, out: np.ndarray) -> np.ndarray:
        bias = self.biases[layer.index]
        self.steps.score(projected, bias)
        mixed = super().attend(run, layer, projected, out)
        self.steps.see(projected, bias, mixed)
        return mixed


def seen(steps: int, config: EncoderConfig, context: AttentionContext) -> tuple[np.ndarray, np.ndarray]:
    """Of each step of a clip the first one that it sees, and the first that it does not see any more: [steps] each.

    As Encoder._visible and Encoder._attention have it.
    """
    if context.is_unlimited and steps > MAX_FULL_ATTENTION_STEPS:
        context = LONG_CONTEXT
    step = np.arange(steps)
    left, right = (steps if side < 0 else side for side in (context.left, context.right))
    if config.style == "chunked_limited" and context.right >= 0:
        chunk = right + 1
        begin = step // chunk * chunk
        first, end = begin - (steps if context.left < 0 else left // chunk * chunk), begin + chunk
    elif config.style == "chunked_limited_with_rc":
        chunk = context.chunk or 1
        begin = step // chunk * chunk
        first, end = begin - left, begin + chunk + right
    else:
        first, end = step - left, step + right + 1
    return np.maximum(first, 0), np.minimum(end, steps)


def _farthest(first: np.ndarray, end: np.ndarray) -> int:
    """Steps to either side that a table must reach."""
    step = np.arange(len(first))
    return int(max((step - first).max(), (end - step).max())) + 1
