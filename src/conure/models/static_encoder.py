"""The encoder's step for thousands of live streams: static shapes, state updated in place, no synchronisation.

Everything that differs between rows is a tensor, and state is read and written by slot, so a call can be captured as a
CUDA graph and replayed for other streams. The reference implementation is `conformer.Encoder.step`, which gathers rows,
shifts their caches and scatters them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from conure.fused.filter_step import filter_step
from conure.fused.ring_attention import attend_ring
from conure.models.folded_encoder import FoldedEncoder
from conure.models.folded_layers import FoldedLayer
from conure.models.ring_state import RingState

__all__ = ["StaticEncoder"]


@dataclass(frozen=True)
class _Positions:
    """A layer's projection of the distances between the steps of a chunk and the steps that they see."""

    table: Tensor
    """[h, d, P]."""
    bias: Tensor
    """The contribution of the learned position bias to the scores, [h, P]."""


@dataclass(frozen=True)
class _Rows:
    slots: Tensor
    """[B], int64, like the others."""
    into: Tensor
    """The slots to which the state is written."""
    age: Tensor
    """Steps of the stream before the chunk."""
    counts: Tensor
    """Steps of the chunk."""


class StaticEncoder:
    def __init__(self, encoder: FoldedEncoder, past: int) -> None:
        """`past`: steps that the state caches."""
        self.encoder = encoder
        self.past = past
        self._positions: dict[int, list[_Positions]] = {}

    def allocate(self, slots: int) -> RingState:
        return RingState.allocate(self.encoder.config, slots, self.past, self.encoder.pre_encode.out.weight)

    def prepare(self, chunk: int) -> None:
        """Computes the positions for chunks of `chunk` encoder steps, once."""
        if chunk not in self._positions:
            tables = self.encoder.positions(self.past + chunk - 1, 1 - chunk)
            layers = zip(self._layers(), tables, strict=True)
            self._positions[chunk] = [_positions(layer, table) for layer, table in layers]

    @torch.inference_mode()
    def step(
        self,
        mel: Tensor,
        frames: Tensor,
        slots: Tensor,
        age: Tensor,
        state: RingState,
        into: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One chunk of C steps: mel [B, 8C, F] -> encoded [B, C, D], counts [B].

        `frames`, `slots` and `age`, [B] int64, are the mel frames as `Encoder.step` counts them, the slots of the
        state, and the steps of each stream so far. The new state is written to the slots `into` if given: a row that
        is flushed, or has no frames, uses the scratch slot, which several rows may share.
        """
        into = slots if into is None else into
        self.prepare(mel.shape[1] // 8)
        before = tuple(cache.index_select(0, slots) for cache in state.subsampling)
        x, counts, after = self.encoder.pre_encode.step(mel, frames, age == 0, before)
        for cache, new in zip(state.subsampling, after, strict=True):
            cache.index_copy_(0, into, new)
        return self._run_layers(self.encoder._scale(x), _Rows(slots, into, age, counts), state), counts

    def _run_layers(self, x: Tensor, rows: _Rows, state: RingState) -> Tensor:
        for index, (layer, positions) in enumerate(zip(self._layers(), self._positions[x.shape[1]], strict=True)):
            x = self.encoder._apply_speakers(index, x, None)
            ring = state.keys[index], state.values[index], state.convolution[index]
            x = _run_layer(layer, x, rows, positions, ring)
        return x

    def _layers(self) -> list[FoldedLayer]:
        return list(self.encoder.layers)  # type: ignore[arg-type]


def _positions(layer: FoldedLayer, table: Tensor) -> _Positions:
    bias = layer.bias_v[:, None] @ table.transpose(1, 2)
    return _Positions(table.transpose(1, 2).contiguous(), bias[:, 0])


def _run_layer(
    layer: FoldedLayer, x: Tensor, rows: _Rows, positions: _Positions, ring: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """One layer: x [B, C, D]; ring: keys and values [slots, h, L, d], gated steps [slots, kernel - 1, D]."""
    keys, values, convolution = ring

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        position_scores = query.flatten(0, 1).transpose(0, 1) @ positions.table
        return attend_ring(
            query,
            position_scores,
            positions.bias,
            layer.bias_u,
            key,
            value,
            keys,
            values,
            rows.slots,
            rows.into,
            rows.age,
            rows.counts,
        )

    def filter_steps(mixed: Tensor) -> Tensor:
        depthwise = layer.filter
        places = rows.slots, rows.into, rows.age, rows.counts
        return filter_step(mixed, convolution, *places, depthwise.weight, depthwise.bias, depthwise.norm)

    return layer.run(x, attend, filter_steps)
