"""The decoder's loop in a form that can be recorded: so many steps, buffers that stay where they are.

    begin(encoded, counts, state) ──> advance() ──> ... advance() ──> tokens, state
                                          └─ unfinished: whether any row needs more of them

A step too many changes nothing, so `advance` may be called on before it is known whether it was needed. The plain
twin, which looks after each step, is `transducer.decode_transducer`.
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
    """For `rows` rows of at most `steps` encoder steps, each call of `advance` looking for `times` tokens a row."""

    def __init__(self, heads: Heads, rows: int, steps: int, times: int, window: int) -> None:
        self.heads, self.rows, self.times, self.window = heads, rows, times, window
        spoken = TransducerState.start(heads, rows)
        self.steps = spoken.predicted.new_zeros(rows, steps, spoken.predicted.shape[1])
        self.counts = torch.zeros_like(spoken.ahead)
        self.decoded = torch.zeros_like(spoken.ahead)
        self.cursor = spoken.cursor()
        self.tokens = TokenBuffer.allocate(rows, steps * heads.config.max_symbols, heads.device)
        self.unfinished = torch.zeros((), dtype=torch.bool, device=heads.device)

    def begin(self, encoded: Tensor, counts: Tensor, state: TransducerState) -> None:
        """encoded [b, s, D] and counts [b] of the first rows, no more and no longer than there is room for; the other
        rows have nothing. The state is of all rows."""
        rows, steps = encoded.shape[:2]
        self.steps[:rows, :steps].copy_(self.heads.project(encoded))
        self.counts.zero_()
        self.counts[:rows].copy_(counts)
        self.decoded.copy_(state.decoded)
        self.cursor.write(state.cursor())
        self.tokens.counts.zero_()
        torch.any(self.cursor.time < self.counts, dim=0, out=self.unfinished)

    def advance(self) -> None:
        """Looks for more tokens of each row."""
        cursor = self.cursor
        for _ in range(self.times):
            scores = score_window(self.heads, self.steps, cursor, self.window)
            emits, ids = emit_tokens(self.heads, scores, self.counts, self.decoded, cursor, self.tokens)
            advance_predictor(self.heads, cursor, emits, ids)
        torch.any(cursor.time < self.counts, dim=0, out=self.unfinished)

    def state(self) -> TransducerState:
        """After the last step of all rows; its tensors are the loop's own."""
        cursor = self.cursor
        before = TransducerState(cursor.hidden, cursor.cell, cursor.predicted, cursor.time, self.decoded)
        return before.at_chunk_end(cursor, self.counts)
