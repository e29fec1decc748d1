"""Greedy decoding of RNNT and TDT networks, batched and resumable.

One loop serves both: a token or a blank moves its row ahead by a jump, which RNNT fixes (0 and 1) and
TDT predicts. The prediction network moves on tokens alone, so the joint can be asked for several steps at
once while blanks last (`window`): its weights are read once for all of them. A window of 1 is the plain
form; every window gives the same tokens.

Sources: Xu et al. (TDT, 2023); Bataev et al., "Label-Looping" (2024). What one step does is in `cursor`.
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
"""Steps the joint looks at together. Speech emits about one token in four steps of 80 ms."""


@dataclass(frozen=True)
class TransducerState:
    """What a row carries from chunk to chunk."""

    hidden: Tensor
    """[layers, B, P]."""
    cell: Tensor
    predicted: Tensor
    """The prediction network's last output, projected for the joint: [B, J]."""
    ahead: Tensor
    """Steps of the next chunk already jumped over, [B]."""
    decoded: Tensor
    """Steps decoded so far, [B]; token times count from the row's start."""

    @staticmethod
    def start(heads: Heads, rows: int) -> TransducerState:
        """Rows that have decoded nothing: the prediction network has seen the start symbol."""
        predicted, (hidden, cell) = heads.start(rows)
        zeros = torch.zeros(rows, dtype=torch.long, device=heads.device)
        return TransducerState(hidden, cell, predicted, zeros, zeros.clone())

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for part in (self.hidden, self.cell, self.predicted, self.ahead, self.decoded))

    def repeat(self, rows: int) -> TransducerState:
        """So many copies of a state of one row."""
        return TransducerState(
            self.hidden.repeat(1, rows, 1),
            self.cell.repeat(1, rows, 1),
            self.predicted.repeat(rows, 1),
            self.ahead.repeat(rows),
            self.decoded.repeat(rows),
        )

    def cursor(self) -> Cursor:
        """At the beginning of a chunk, of the state's own tensors."""
        return Cursor(self.ahead, torch.zeros_like(self.ahead), self.hidden, self.cell, self.predicted)

    def at_chunk_end(self, cursor: Cursor, counts: Tensor) -> TransducerState:
        """At the end of a chunk of so many steps a row, [B]."""
        return TransducerState(
            cursor.hidden, cursor.cell, cursor.predicted, cursor.time - counts, self.decoded + counts
        )

    def gather(self, rows: Tensor) -> TransducerState:
        """A copy of some rows, in the order asked for."""
        parts = (self.hidden[:, rows], self.cell[:, rows], self.predicted[rows], self.ahead[rows], self.decoded[rows])
        return TransducerState(*parts)

    def reset_where(self, fresh: Tensor, start: TransducerState) -> TransducerState:
        """The rows that are `fresh` [B] bool as `start`, of one row or as many, has them; the others as they are."""
        own = fresh[:, None]
        return TransducerState(
            torch.where(own, start.hidden, self.hidden),
            torch.where(own, start.cell, self.cell),
            torch.where(own, start.predicted, self.predicted),
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

    Looks after each token whether there are more. `label_loop` gives the same without looking.
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
