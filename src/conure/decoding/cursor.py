"""How far each row of a batch is in the chunk that is being decoded, and one step of the loop over its tokens.

    look(heads, steps, cursor, window) ──> emit(...) ──> remember(...), once a token for each row

Nothing here waits for a device or makes tensors whose shape depends on what was found, so the same steps run in a
loop that looks whether it is done and in one that has been recorded. All of it happens in place. By which rules, see
`fused/label_step.py`.
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
    """The step that is looked at next, [B]."""
    repeats: Tensor
    """Tokens emitted at that step, [B]."""
    hidden: Tensor
    """Of the prediction network, [layers, B, P]."""
    cell: Tensor
    predicted: Tensor
    """Its last output, projected for the joint, [B, J]."""

    def write(self, other: Cursor) -> None:
        """Takes the values of another of the same shape, in place."""
        for part in fields(self):
            getattr(self, part.name).copy_(getattr(other, part.name))

    def copy(self) -> Cursor:
        parts = (getattr(self, part.name) for part in fields(self))
        return Cursor(*(part.clone(memory_format=torch.contiguous_format) for part in parts))


def score_window(heads: Heads, steps: Tensor, cursor: Cursor, window: int) -> JointScores:
    """What the joint says of so many steps from where each row is: projected steps [B, S, J]."""
    return score_steps(heads, steps, cursor.time, cursor.predicted, window)


def emit_tokens(
    heads: Heads, scores: JointScores, counts: Tensor, decoded: Tensor, cursor: Cursor, tokens: TokenBuffer
) -> tuple[Tensor, Tensor]:
    """Walks over blanks to the next token of each row that has one there, appends it and moves on.

    counts [B] and decoded [B] are the steps of the chunk and before it -> who emits, bool [B], and what, [B]: nothing
    where only blanks were seen, or the chunk is over.
    """
    rules = Rules(heads.config.blank, heads.config.durations, heads.config.max_symbols)
    place = counts, decoded, cursor.time, cursor.repeats, tokens.columns, rules
    if scores.token_scores is None:
        return next_tokens(scores.ids, scores.duration, scores.scores_at, *place)
    return label_step((scores.ids, scores.duration, *scores.token_scores), *place)


def advance_predictor(heads: Heads, cursor: Cursor, emits: Tensor, ids: Tensor) -> None:
    """Moves the prediction network on where a row has emitted."""
    memory = cursor.hidden, cursor.cell
    if heads.predictor is not None and has_fused_kernels(heads.device):
        heads.advance_in_place(ids, emits, memory, cursor.predicted)
        return
    predicted, after = heads.advance(ids, memory)
    for now, then in zip((predicted, *after), (cursor.predicted, *memory), strict=True):
        torch.where(emits[:, None], now, then, out=then)
