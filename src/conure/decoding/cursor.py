"""The position of each row in the chunk that is being decoded, and one iteration of the loop over its tokens.

    score_window(heads, steps, cursor, window) ──> emit_tokens(...) ──> advance_predictor(...)

An iteration emits at most one token per row. It does not synchronise with the device, and shapes do not depend on
results, so the same code runs in a loop that checks whether it is done and in a captured CUDA graph. Updates are in
place. The rules are those of `fused/label_step.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from conure.decoding.joint_scores import JointScores, score_steps
from conure.decoding.token_buffer import TokenBuffer
from conure.fused.available import has_fused_kernels
from conure.fused.label_step import Rules, label_step, next_tokens
from conure.models.network import Heads

__all__ = ["Cursor", "emit_tokens", "score_window", "advance_predictor"]


@dataclass(frozen=True)
class Cursor:
    time: Tensor
    """The next step, [B]."""
    repeats: Tensor
    """Tokens emitted at that step so far, [B]."""
    hidden: Tensor
    """State of the prediction network, [layers, B, P]."""
    cell: Tensor
    predicted: Tensor
    """Last output of the prediction network, projected for the joint, [B, J]."""

    def write(self, other: Cursor) -> None:
        """Copies the values of another cursor of the same shape, in place."""
        for part in fields(self):
            getattr(self, part.name).copy_(getattr(other, part.name))

    def copy(self) -> Cursor:
        parts = (getattr(self, part.name) for part in fields(self))
        return Cursor(*(part.clone(memory_format=torch.contiguous_format) for part in parts))


def score_window(heads: Heads, steps: Tensor, cursor: Cursor, window: int) -> JointScores:
    """Scores of the `window` steps from each row's position on; projected steps [B, S, J]."""
    return score_steps(heads, steps, cursor.time, cursor.predicted, window)


def emit_tokens(
    heads: Heads, scores: JointScores, counts: Tensor, decoded: Tensor, cursor: Cursor, tokens: TokenBuffer
) -> tuple[Tensor, Tensor]:
    """Skips blanks up to the next token of each row, appends it and advances the cursor.

    counts [B] and decoded [B] are the steps of the chunk and before it -> which rows emit, bool [B], and their tokens,
    [B]. Rows with blanks only, or at the end of the chunk, do not emit.
    """
    rules = Rules(heads.config.blank, heads.config.durations, heads.config.max_symbols)
    place = counts, decoded, cursor.time, cursor.repeats, tokens.columns, rules
    if scores.token_scores is None:
        return next_tokens(scores.ids, scores.duration, scores.scores_at, *place)
    return label_step((scores.ids, scores.duration, *scores.token_scores), *place)


def advance_predictor(heads: Heads, cursor: Cursor, emits: Tensor, ids: Tensor) -> None:
    """Advances the prediction network of the rows that have emitted."""
    memory = cursor.hidden, cursor.cell
    if heads.predictor is not None and has_fused_kernels(heads.device):
        heads.advance_in_place(ids, emits, memory, cursor.predicted)
        return
    predicted, after = heads.advance(ids, memory)
    for new, old in zip((predicted, *after), (cursor.predicted, *memory), strict=True):
        torch.where(emits[:, None], new, old, out=old)
