"""How far each row of a batch is in the chunk that is being decoded, and one step of the loop over its tokens.

Nothing here waits for a device or makes tensors whose shape depends on what was found, so the same steps run in a
loop that looks whether it is done and in one that has been recorded.

Rules, as NeMo's label-looping decoders have them: a blank moves at least one step; after `max_symbols` tokens at one
step the row is moved on; a TDT jump may carry past the end of a chunk, and what is left of it is taken off the next.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache

import torch
from torch import Tensor

from conure.decoding.hypothesis import Tokens
from conure.decoding.scores import Scores, look
from conure.models.network import Heads

__all__ = ["Cursor", "Found", "say", "seek"]


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


@dataclass(frozen=True)
class Found:
    """The next token of each row, before it is emitted."""

    emits: Tensor
    """False where only blanks were seen, or the chunk is over: bool [B]."""
    place: Tensor
    """Which of the steps looked at it is, [B]."""
    scores: Scores
    jumps: Tensor
    """Steps from each step looked at to the next, [B, W]."""
    cursor: Cursor
    """At the token; at the end of what was looked at where there is none."""


def seek(heads: Heads, steps: Tensor, counts: Tensor, cursor: Cursor, window: int) -> Found:
    """Walks over blanks, `window` steps at most: projected steps [B, S, J], counts [B]."""
    index = cursor.time[:, None] + _places(window, steps.device)
    index = index.clamp(max=steps.shape[1] - 1)
    seen = steps.gather(1, index[..., None].expand(-1, -1, steps.shape[2]))
    scores = look(heads, seen, cursor.predicted)
    blank = scores.ids == heads.config.blank
    jumps = _jumps(heads, scores, blank)
    offset = _skip_blanks(blank, jumps, counts - cursor.time)
    time = cursor.time + offset
    repeats = cursor.repeats.masked_fill(offset > 0, 0)
    moved = Cursor(time, repeats, cursor.hidden, cursor.cell, cursor.predicted)
    return Found((offset < window) & (time < counts), offset.clamp(max=window - 1), scores, jumps, moved)


def say(heads: Heads, found: Found, tokens: Tokens, decoded: Tensor) -> Cursor:
    """Appends what was found and moves the prediction network on; `decoded` [B] are the steps before the chunk."""
    emits, place, cursor = found.emits, found.place[:, None], found.cursor
    ids, jump = found.scores.ids.gather(1, place)[:, 0], found.jumps.gather(1, place)[:, 0]
    lasts = jump if heads.config.durations else jump.clamp(min=1)
    log_probs, confidences = found.scores.sureness(found.place)
    tokens.append(emits, ids, cursor.time + decoded, lasts, log_probs, confidences)
    repeats = cursor.repeats + (emits & (jump == 0))
    moved = emits * jump + (repeats >= heads.config.max_symbols)
    predicted, (hidden, cell) = heads.advance(ids, (cursor.hidden, cursor.cell))
    said = emits[:, None]
    return Cursor(
        cursor.time + moved,
        repeats.masked_fill(moved > 0, 0),
        torch.where(said, hidden, cursor.hidden),
        torch.where(said, cell, cursor.cell),
        torch.where(said, predicted, cursor.predicted),
    )


def _jumps(heads: Heads, scores: Scores, blank: Tensor) -> Tensor:
    if scores.duration is None:
        return blank.long()
    jumps = _durations(heads.config.durations, blank.device)[scores.duration]
    return torch.where(blank, jumps.clamp(min=1), jumps)


def _skip_blanks(blank: Tensor, jumps: Tensor, left: Tensor) -> Tensor:
    """How far each row walks over blanks until a token, the end of the window, or its own in `left` steps: [B]."""
    window = blank.shape[1]
    offset = torch.zeros_like(left)
    for _ in range(window):
        inside = offset.clamp(max=window - 1)[:, None]
        walks = (offset < window) & (offset < left) & blank.gather(1, inside)[:, 0]
        offset = offset + walks * jumps.gather(1, inside)[:, 0]
    return offset


# Kept for ever: what was recorded reads them where they are.


@cache
def _places(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device)


@cache
def _durations(durations: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(durations, device=device)
