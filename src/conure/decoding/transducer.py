"""Greedy decoding of RNNT and TDT networks, batched and resumable.

One loop serves both: a token or a blank advances its row by a duration, which is fixed for RNNT (0 and 1) and
predicted for TDT. The prediction network only advances with tokens, so the joint can score several steps at
once (`window`): its weights are read once for all of them. Every window gives the same tokens.

Sources: Xu et al. (TDT, 2023); Bataev et al., "Label-Looping" (2024). One iteration is in `cursor`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from conure.decoding.cursor import Cursor, advance_predictor, emit_tokens, score_window
from conure.decoding.token_buffer import TokenBuffer
from conure.models.network import Heads

__all__ = ["TransducerState", "decode_transducer"]

WINDOW = 4
"""Steps that the joint scores together. Speech has about one token in four steps of 80 ms."""


@dataclass(frozen=True)
class TransducerState:
    """The decoder's state of each row between chunks."""

    hidden: Tensor
    """[layers, B, P]."""
    cell: Tensor
    predicted: Tensor
    """The prediction network's last output, projected for the joint: [B, J]."""
    ahead: Tensor
    """Steps of the next chunk that a duration has already skipped, [B]."""
    decoded: Tensor
    """Steps decoded so far, [B]; token times count from the row's start."""

    @staticmethod
    def start(heads: Heads, rows: int) -> TransducerState:
        """Initial state: the prediction network has seen the start symbol."""
        predicted, (hidden, cell) = heads.start(rows)
        zeros = torch.zeros(rows, dtype=torch.long, device=heads.device)
        return TransducerState(hidden, cell, predicted, zeros, zeros.clone())

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for part in (self.hidden, self.cell, self.predicted, self.ahead, self.decoded))

    def repeat(self, rows: int) -> TransducerState:
        """`rows` copies of a state of one row."""
        return TransducerState(
            self.hidden.repeat(1, rows, 1),
            self.cell.repeat(1, rows, 1),
            self.predicted.repeat(rows, 1),
            self.ahead.repeat(rows),
            self.decoded.repeat(rows),
        )

    def cursor(self) -> Cursor:
        """A cursor at the beginning of a chunk, which shares the tensors of the state."""
        return Cursor(self.ahead, torch.zeros_like(self.ahead), self.hidden, self.cell, self.predicted)

    def at_chunk_end(self, cursor: Cursor, counts: Tensor) -> TransducerState:
        """The state after a chunk with `counts` [B] steps per row."""
        return TransducerState(
            cursor.hidden, cursor.cell, cursor.predicted, cursor.time - counts, self.decoded + counts
        )

    def gather(self, rows: Tensor) -> TransducerState:
        """A copy of the given rows, in that order."""
        parts = (self.hidden[:, rows], self.cell[:, rows], self.predicted[rows], self.ahead[rows], self.decoded[rows])
        return TransducerState(*parts)

    def reset_where(self, fresh: Tensor, start: TransducerState) -> TransducerState:
        """A copy with the rows where `fresh` [B] is true replaced by `start`, which has one row or as many."""
        mask = fresh[:, None]
        return TransducerState(
            torch.where(mask, start.hidden, self.hidden),
            torch.where(mask, start.cell, self.cell),
            torch.where(mask, start.predicted, self.predicted),
            torch.where(fresh, start.ahead, self.ahead),
            torch.where(fresh, start.decoded, self.decoded),
        )

    def scatter(self, rows: Tensor, other: TransducerState) -> None:
        """Writes the rows of `other` in place."""
        self.hidden[:, rows] = other.hidden
        self.cell[:, rows] = other.cell
        self.predicted[rows] = other.predicted
        self.ahead[rows] = other.ahead
        self.decoded[rows] = other.decoded


@torch.inference_mode()
def decode_transducer(
    heads: Heads,
    encoded: Tensor,
    counts: Tensor,
    state: TransducerState | None = None,
    window: int = WINDOW,
) -> tuple[TokenBuffer, TransducerState]:
    """encoded [B, S, D], counts [B] -> tokens of this chunk and the state after it.

    Checks after each iteration whether it is done. `label_looping` computes the same without these checks.
    """
    rows = encoded.shape[0]
    state = state or TransducerState.start(heads, rows)
    tokens = TokenBuffer.allocate(rows, encoded.shape[1] * heads.config.max_symbols, encoded.device)
    steps, cursor = heads.project(encoded), state.cursor().copy()
    while bool((cursor.time < counts).any()):
        scores = score_window(heads, steps, cursor, window)
        emits, ids = emit_tokens(heads, scores, counts, state.decoded, cursor, tokens)
        if bool(emits.any()):
            advance_predictor(heads, cursor, emits, ids)
    return tokens, state.at_chunk_end(cursor, counts)
