"""The encoder of an int8 network for clips in native kernels, equivalent to the graph of `convert/clip_graphs.py`.

The steps of several clips are concatenated without padding, so that short clips are as fast as long ones. For every
style of attention, a contiguous range of its clip is visible to each step.
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

__all__ = ["NativeClipEncoder", "visible_ranges"]


class NativeClipEncoder:
    """Opens the int8 weights of a converted model."""

    def __init__(self, weights: Int8Weights, config: EncoderConfig, threads: int) -> None:
        self.config, self._weights = config, weights
        self.layers = NativeLayers(weights, config, threads)
        self._short_tables = self._long_tables = self._distance_tables(REACH)

    def encode(
        self,
        x: np.ndarray,
        counts: Sequence[int],
        prompts: np.ndarray | None = None,
        context: AttentionContext | None = None,
    ) -> Preemptible[np.ndarray]:
        """x [N, channels * bands] of clips of counts [C] steps, language prompts [C] -> [N, D]; a slice is a layer.

        Only unified networks accept a context.
        """
        context = context or self.config.contexts[0]
        ranges = [visible_ranges(count, self.config, context) for count in counts]
        first, end = (np.concatenate(side) for side in zip(*ranges, strict=True))
        distances = self._tables_for(ranges)
        if self.config.local and self.config.global_tokens:
            steps = GlobalSteps(counts, self.config)
            clips = Clips(np.array(counts), first, end, steps.rows, steps.scores)
            view: _ClipView = _GlobalClipView(distances, clips, self._left_padding, steps, self._biases)
        else:
            view = _ClipView(distances, Clips(np.array(counts), first, end), self._left_padding)
        row_prompts = None if prompts is None else np.repeat(prompts, counts)
        return (yield from self.layers.run(x, view, row_prompts))

    @property
    def _left_padding(self) -> int:
        """Steps before each step that its convolution reads."""
        reach = self.config.kernel - 1
        return reach if self.config.causal_convolution else reach // 2

    def _tables_for(self, ranges: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Distances]:
        """Distance tables of all layers that cover the visible ranges; the longest ones are cached."""
        steps = max(_max_distance(first, end) for first, end in ranges)
        if steps <= REACH:
            return self._short_tables
        if steps > self._long_tables[0].reach:
            self._long_tables = self._distance_tables(steps)
        return self._long_tables

    def _distance_tables(self, steps: int) -> list[Distances]:
        heads, layers = self.config.heads, range(self.config.layers)
        return [self._weights.distances(f"{index}.attention", heads, steps) for index in layers]

    @functools.cached_property
    def _biases(self) -> list[np.ndarray]:
        """The content bias in the queries of each layer."""
        return [self._weights.array(f"{index}.attention.bias") for index in range(self.config.layers)]


@dataclass(frozen=True)
class _ClipView:
    """Attention and convolution within a range of the clip."""

    distances: list[Distances]
    clips: Clips
    before: int

    def attend(self, run: Kernels, layer: NativeLayer, projected: np.ndarray, out: np.ndarray) -> np.ndarray:
        return run.attend_clips(self.distances[layer.index], self.clips, projected, out)

    def filter(self, run: Kernels, layer: NativeLayer, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        return run.filter_clips(layer.filter, self.before, self.clips, x, out)


@dataclass(frozen=True)
class _GlobalClipView(_ClipView):
    """The same with global steps, which attend to the whole clip and are visible to all of its steps."""

    steps: GlobalSteps
    biases: list[np.ndarray]

    def attend(self, run: Kernels, layer: NativeLayer, projected: np.ndarray, out: np.ndarray) -> np.ndarray:
        bias = self.biases[layer.index]
        self.steps.compute_scores(projected, bias)
        mixed = super().attend(run, layer, projected, out)
        self.steps.attend(projected, bias, mixed)
        return mixed


def visible_ranges(steps: int, config: EncoderConfig, context: AttentionContext) -> tuple[np.ndarray, np.ndarray]:
    """The range of steps, first [steps] and end [steps], that is visible to each step of a clip.

    The same rules as `Encoder._visible` and `Encoder._attention`.
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


def _max_distance(first: np.ndarray, end: np.ndarray) -> int:
    """Largest distance to either side that a table must cover."""
    step = np.arange(len(first))
    return int(max((step - first).max(), (end - step).max())) + 1
