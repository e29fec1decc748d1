"""The decoder's loop for CUDA graphs: a fixed number of iterations per call, buffers at fixed addresses.

    begin(encoded, counts, state) ──> advance() ──> ... advance() ──> tokens, state
                                          └─ unfinished: whether any row needs another call

A surplus iteration has no effect, so `advance` may be called again before `unfinished` is read. The reference
implementation, which checks after each iteration, is `transducer.decode_transducer`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conure.decoding.cursor import advance_predictor, emit_tokens, score_window
from conure.decoding.token_buffer import TokenBuffer
from conure.decoding.transducer import TransducerState
from conure.models.network import Heads

__all__ = ["LabelLooping"]


class LabelLooping:
    """Buffers for `rows` rows of at most `steps` encoder steps; `advance` runs `times` iterations."""

    def __init__(self, heads: Heads, rows: int, steps: int, times: int, window: int) -> None:
        self.heads, self.rows, self.times, self.window = heads, rows, times, window
        state = TransducerState.start(heads, rows)
        self.steps = state.predicted.new_zeros(rows, steps, state.predicted.shape[1])
        self.counts = torch.zeros_like(state.ahead)
        self.decoded = torch.zeros_like(state.ahead)
        self.cursor = state.cursor()
        self.tokens = TokenBuffer.allocate(rows, steps * heads.config.max_symbols, heads.device)
        self.unfinished = torch.zeros((), dtype=torch.bool, device=heads.device)

    def begin(self, encoded: Tensor, counts: Tensor, state: TransducerState) -> None:
        """Starts a chunk: encoded [b, s, D] and counts [b] of the first rows, within the size of the buffers; the
        other rows are empty. The state is that of all rows."""
        rows, steps = encoded.shape[:2]
        self.steps[:rows, :steps].copy_(self.heads.project(encoded))
        self.counts.zero_()
        self.counts[:rows].copy_(counts)
        self.decoded.copy_(state.decoded)
        self.cursor.write(state.cursor())
        self.tokens.counts.zero_()
        torch.any(self.cursor.time < self.counts, dim=0, out=self.unfinished)

    def advance(self) -> None:
        """Runs `times` iterations; each emits at most one token per row."""
        cursor = self.cursor
        for _ in range(self.times):
            scores = score_window(self.heads, self.steps, cursor, self.window)
            emits, ids = emit_tokens(self.heads, scores, self.counts, self.decoded, cursor, self.tokens)
            advance_predictor(self.heads, cursor, emits, ids)
        torch.any(cursor.time < self.counts, dim=0, out=self.unfinished)

    def state(self) -> TransducerState:
        """The state after the chunk; its tensors are the loop's buffers."""
        cursor = self.cursor
        before = TransducerState(cursor.hidden, cursor.cell, cursor.predicted, cursor.time, self.decoded)
        return before.at_chunk_end(cursor, self.counts)
