"""One iteration of label looping: from the joint's scores of a window of steps to the next token of each row.

Skips blanks, appends the token, and advances. The rules are those of NeMo's label-looping decoders: a blank advances by
at least one step; after `max_symbols` tokens at one step the row advances; a TDT duration may end beyond the chunk, and
the rest of it is skipped in the next chunk.
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
    "WindowScores",
    "TokenColumns",
    "append_tokens",
    "durations_tensor",
    "label_step",
    "label_step_reference",
    "next_tokens",
]

WindowScores = tuple[Tensor, Tensor | None, Tensor, Tensor]
"""Scores of each step in the window, [B, W]: best token, index of the best duration (None for RNNT), log-probability,
confidence."""
TokenColumns = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Tokens so far: ids, steps, durations, log-probabilities and confidences [B, U + 1], whose last column is scratch,
then the number of tokens [B]."""


@dataclass(frozen=True)
class Rules:
    blank: int
    durations: tuple[int, ...]
    """Durations of TDT tokens in steps; empty for RNNT."""
    max_symbols: int


def label_step(
    scored: WindowScores,
    counts: Tensor,
    decoded: Tensor,
    time: Tensor,
    repeats: Tensor,
    written: TokenColumns,
    rules: Rules,
    *,
    kernels: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """-> which rows emit a token, bool [B], and the token ids, int64 [B], undefined for other rows.

    `scored` are the steps from `time` on. Rows have `counts` steps in this chunk and `decoded` before it. Updates
    `time`, `repeats` (tokens emitted at the current step) and `written` in place. All integers are int64.
    """
    args = (scored, counts, decoded, time, repeats, written, rules)
    if has_fused_kernels(time.device) if kernels is None else kernels:
        from conure.fused.label_step_kernel import launch

        return launch(*args)
    return label_step_reference(*args)


def label_step_reference(
    scored: WindowScores,
    counts: Tensor,
    decoded: Tensor,
    time: Tensor,
    repeats: Tensor,
    written: TokenColumns,
    rules: Rules,
) -> tuple[Tensor, Tensor]:
    """Reference implementation."""
    ids, duration, *score_columns = scored

    def token_scores(index: Tensor) -> tuple[Tensor, Tensor]:
        log_probabilities, confidences = (part.gather(1, index[:, None])[:, 0] for part in score_columns)
        return log_probabilities, confidences

    return next_tokens(ids, duration, token_scores, counts, decoded, time, repeats, written, rules)


def next_tokens(
    ids: Tensor,
    duration: Tensor | None,
    token_scores: Callable[[Tensor], tuple[Tensor, Tensor]],
    counts: Tensor,
    decoded: Tensor,
    time: Tensor,
    repeats: Tensor,
    written: TokenColumns,
    rules: Rules,
) -> tuple[Tensor, Tensor]:
    """The same, where `token_scores` computes log-probability and confidence of a step per row, [B] -> [B], [B]."""
    window = ids.shape[1]
    blank = ids == rules.blank
    jumps = _jumps(blank, duration, rules)
    offset = _skip_blanks(blank, jumps, counts - time)
    time.add_(offset)
    emits = (offset < window) & (time < counts)
    index = offset.clamp(max=window - 1)
    tokens, jump = (part.gather(1, index[:, None])[:, 0] for part in (ids, jumps))
    token_durations = jump if rules.durations else jump.clamp(min=1)
    append_tokens(written, emits, (tokens, time + decoded, token_durations, *token_scores(index)))
    repeats.masked_fill_(offset > 0, 0).add_(emits & (jump == 0))
    advance = emits * jump + (repeats >= rules.max_symbols)
    time.add_(advance)
    repeats.masked_fill_(advance > 0, 0)
    return emits, tokens


def append_tokens(written: TokenColumns, mask: Tensor, token: tuple[Tensor, ...]) -> None:
    """Appends one token, [B] for each column, to the rows where `mask` [B] is true."""
    *columns, counts = written
    index = torch.where(mask, counts, columns[0].shape[1] - 1)[:, None]
    for column, value in zip(columns, token, strict=True):
        column.scatter_(1, index, value[:, None].to(column.dtype))
    counts.add_(mask)


def _jumps(blank: Tensor, duration: Tensor | None, rules: Rules) -> Tensor:
    """Steps by which each step of the window advances, [B, W]."""
    if duration is None:
        return blank.long()
    jumps = durations_tensor(rules.durations, blank.device)[duration]
    return torch.where(blank, jumps.clamp(min=1), jumps)


def _skip_blanks(blank: Tensor, jumps: Tensor, left: Tensor) -> Tensor:
    """Steps that each row advances over blanks: to a token, the end of the window, or its end in `left` steps, [B]."""
    window = blank.shape[1]
    offset = torch.zeros_like(left)
    for _ in range(window):
        inside = offset.clamp(max=window - 1)[:, None]
        advances = (offset < window) & (offset < left) & blank.gather(1, inside)[:, 0]
        offset = offset + advances * jumps.gather(1, inside)[:, 0]
    return offset


@cache
def durations_tensor(durations: tuple[int, ...], device: torch.device) -> Tensor:
    """Cached for ever: captured CUDA graphs read it at its address."""
    return torch.tensor(durations, device=device)
