"""Greedy decoding of RNNT and TDT networks, batched and resumable.

One loop serves both: a token or a blank moves its row ahead by a jump, which RNNT fixes (0 and 1) and
TDT predicts. The prediction network moves on tokens alone, so the joint can be asked for several steps at
once while blanks last (`window`): its weights are read once for all of them. A window of 1 is the plain
form; every window gives the same tokens.

Rules, as NeMo's label-looping decoders have them: a blank moves at least one step; after `max_symbols`
tokens at one step the row is moved on; a TDT jump may carry past the end of a chunk, and what is left of
it is taken off the next. Source: Xu et al. (TDT, 2023); Bataev et al., "Label-Looping" (2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from conure.decoding.confidence import confidence
from conure.decoding.hypothesis import Tokens
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

    def repeated(self, rows: int) -> TransducerState:
        """So many copies of a state of one row."""
        return TransducerState(
            self.hidden.repeat(1, rows, 1),
            self.cell.repeat(1, rows, 1),
            self.predicted.repeat(rows, 1),
            self.ahead.repeat(rows),
            self.decoded.repeat(rows),
        )

    def gather(self, rows: Tensor) -> TransducerState:
        """A copy of some rows, in the order asked for."""
        parts = (self.hidden[:, rows], self.cell[:, rows], self.predicted[rows], self.ahead[rows], self.decoded[rows])
        return TransducerState(*parts)

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
) -> tuple[Tokens, TransducerState]:
    """encoded [B, S, D], counts [B] -> tokens of this chunk and the state after it."""
    config, rows, device = heads.config, encoded.shape[0], encoded.device
    state = state or TransducerState.start(heads, rows)
    most = config.max_symbols
    tokens = Tokens.allocate(rows, encoded.shape[1] * most, device)
    steps = heads.project(encoded)
    hidden, cell, predicted = state.hidden, state.cell, state.predicted
    time, repeats = state.ahead.clone(), torch.zeros_like(state.ahead)
    every = torch.arange(rows, device=device)
    while bool((time < counts).any()):
        logits, best, jumps = _look_ahead(heads, steps, predicted, time, window)
        offset = _skip_blanks(best, jumps, time, counts, config.blank)
        inside = offset.clamp(max=window - 1)
        ids, jump = best[every, inside], jumps[every, inside]
        time = time + offset
        repeats = repeats.masked_fill(offset > 0, 0)
        emits = (offset < window) & (time < counts)
        if not bool(emits.any()):
            continue
        log_probs = logits[every, inside].float().log_softmax(-1)
        chosen = log_probs.gather(1, ids[:, None])[:, 0]
        lasts = jump if config.durations else torch.ones_like(jump)
        tokens.append(emits, ids, time + state.decoded, lasts, chosen, confidence(log_probs))
        repeats = repeats + (emits & (jump == 0))
        forced = repeats >= most
        moved = torch.where(emits, jump, 0) + forced
        time = time + moved
        repeats = repeats.masked_fill(moved > 0, 0)
        new_predicted, (new_hidden, new_cell) = heads.advance(ids, (hidden, cell))
        hidden = torch.where(emits[:, None], new_hidden, hidden)
        cell = torch.where(emits[:, None], new_cell, cell)
        predicted = torch.where(emits[:, None], new_predicted, predicted)
    return tokens, TransducerState(hidden, cell, predicted, time - counts, state.decoded + counts)


def _look_ahead(
    heads: Heads, steps: Tensor, predicted: Tensor, time: Tensor, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Token logits [B, W, V + 1], best tokens [B, W] and jumps [B, W] of the steps from `time` on."""
    config = heads.config
    index = time[:, None] + torch.arange(window, device=time.device)
    index = index.clamp(max=steps.shape[1] - 1)
    seen = steps.gather(1, index[..., None].expand(-1, -1, steps.shape[2]))
    logits = heads.score(seen, predicted)
    logits, duration_logits = logits[..., : config.vocabulary + 1], logits[..., config.vocabulary + 1 :]
    best = logits.argmax(-1)
    blank = best == config.blank
    if not config.durations:
        return logits, best, blank.long()
    jumps = torch.tensor(config.durations, device=time.device)[duration_logits.argmax(-1)]
    return logits, best, torch.where(blank, jumps.clamp(min=1), jumps)


def _skip_blanks(best: Tensor, jumps: Tensor, time: Tensor, counts: Tensor, blank: int) -> Tensor:
    """How far each row walks over blanks until a token, its end or the end of the window: [B]."""
    window = best.shape[1]
    offset = torch.zeros_like(time)
    for _ in range(window):
        inside = offset.clamp(max=window - 1)[:, None]
        walks = (offset < window) & (time + offset < counts) & (best.gather(1, inside)[:, 0] == blank)
        offset = offset + torch.where(walks, jumps.gather(1, inside)[:, 0], 0)
    return offset
