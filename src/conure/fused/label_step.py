"""From what the joint says of some steps of each row to its next token: over the blanks, the token written down, on.

Rules, as NeMo's label-looping decoders have them: a blank moves at least one step; after `max_symbols` tokens at one
step the row is moved on; a TDT jump may carry past the end of a chunk, and what is left of it is taken off the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from conure.fused.available import has_fused_kernels

__all__ = [
    "Rules",
    "Scored",
    "TokenColumns",
    "append_tokens",
    "durations_on",
    "label_step",
    "label_step_plainly",
    "next_tokens",
]

Scored = tuple[Tensor, Tensor | None, Tensor, Tensor]
"""Of each step that was looked at, [B, W]: the best token, which of the durations (None for RNNT), log-probability,
confidence."""
TokenColumns = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Tokens so far: ids, steps, durations, log-probabilities and confidences [B, U + 1], whose last column is scratch,
then how many there are, [B]."""


@dataclass(frozen=True)
class Rules:
    blank: int
    durations: tuple[int, ...]
    """Steps a TDT token may last; empty for RNNT."""
    max_symbols: int


def label_step(
    scored: Scored,
    counts: Tensor,
    decoded: Tensor,
    time: Tensor,
    repeats: Tensor,
    written: TokenColumns,
    rules: Rules,
    *,
    kernels: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Which rows emit a token, bool [B], and which, int64 [B]; what it says of other rows means nothing.

    `scored` are steps from `time` on, of rows that have `counts` steps in this chunk after `decoded` before it. In
    place: `time`, `repeats` (tokens emitted at that step) and what is `written`. All integers are int64.
    """
    given = (scored, counts, decoded, time, repeats, written, rules)
    if has_fused_kernels(time.device) if kernels is None else kernels:
        from conure.fused.label_step_kernel import launch

        return launch(*given)
    return label_step_plainly(*given)


def label_step_plainly(
    scored: Scored,
    counts: Tensor,
    decoded: Tensor,
    time: Tensor,
    repeats: Tensor,
    written: TokenColumns,
    rules: Rules,
) -> tuple[Tensor, Tensor]:
    """The same, operation by operation."""
    ids, duration, *sure = scored

    def sureness(place: Tensor) -> tuple[Tensor, Tensor]:
        log_probabilities, confidences = (part.gather(1, place[:, None])[:, 0] for part in sure)
        return log_probabilities, confidences

    return next_tokens(ids, duration, sureness, counts, decoded, time, repeats, written, rules)


def next_tokens(
    ids: Tensor,
    duration: Tensor | None,
    sureness: Callable[[Tensor], tuple[Tensor, Tensor]],
    counts: Tensor,
    decoded: Tensor,
    time: Tensor,
    repeats: Tensor,
    written: TokenColumns,
    rules: Rules,
) -> tuple[Tensor, Tensor]:
    """The same, where `sureness` tells log-probability and confidence of one of each row's steps, [B] -> [B], [B]."""
    window = ids.shape[1]
    blank = ids == rules.blank
    jumps = _jumps(blank, duration, rules)
    offset = _skip_blanks(blank, jumps, counts - time)
    time.add_(offset)
    emits = (offset < window) & (time < counts)
    place = offset.clamp(max=window - 1)
    said, jump = (part.gather(1, place[:, None])[:, 0] for part in (ids, jumps))
    lasts = jump if rules.durations else jump.clamp(min=1)
    append_tokens(written, emits, (said, time + decoded, lasts, *sureness(place)))
    repeats.masked_fill_(offset > 0, 0).add_(emits & (jump == 0))
    moved = emits * jump + (repeats >= rules.max_symbols)
    time.add_(moved)
    repeats.masked_fill_(moved > 0, 0)
    return emits, said


def append_tokens(written: TokenColumns, mask: Tensor, token: tuple[Tensor, ...]) -> None:
    """Writes one token, [B] each as the columns are, to every row where `mask` [B] is true."""
    *columns, counts = written
    place = torch.where(mask, counts, columns[0].shape[1] - 1)[:, None]
    for column, value in zip(columns, token, strict=True):
        column.scatter_(1, place, value[:, None].to(column.dtype))
    counts.add_(mask)


def _jumps(blank: Tensor, duration: Tensor | None, rules: Rules) -> Tensor:
    """Steps from each step looked at to the next, [B, W]."""
    if duration is None:
        return blank.long()
    jumps = durations_on(rules.durations, blank.device)[duration]
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


@cache
def durations_on(durations: tuple[int, ...], device: torch.device) -> Tensor:
    """Kept for ever: what was recorded reads it where it is."""
    return torch.tensor(durations, device=device)
