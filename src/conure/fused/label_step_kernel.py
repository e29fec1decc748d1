"""One program some rows, a row a lane: in one pass over the window it stands wherever the last blank has carried it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from conure.fused.label_step import Rules, Scored, TokenColumns, durations_on

__all__ = ["label_step_kernel", "launch", "meta"]

ROWS = 32


def launch(
    scored: Scored,
    counts: Tensor,
    decoded: Tensor,
    time: Tensor,
    repeats: Tensor,
    written: TokenColumns,
    rules: Rules,
) -> tuple[Tensor, Tensor]:
    """As `label_step.label_step`. Raises ValueError for tensors that are not contiguous."""
    ids, duration, *_ = scored
    places = (*(part for part in scored if part is not None), counts, decoded, time, repeats, *written)
    if not all(part.is_contiguous() for part in places):
        raise ValueError("scores, counts, the cursor and what is written must be contiguous")
    rows, window = ids.shape
    emits = torch.empty(rows, dtype=torch.bool, device=ids.device)
    said = torch.empty_like(counts)
    table = None if duration is None else durations_on(rules.durations, ids.device)
    label_step_kernel[(triton.cdiv(rows, ROWS),)](
        *(*scored, table, counts, decoded, time, repeats, *written, emits, said),
        *(rows, written[0].shape[1], rules.blank),
        **meta(window, rules.max_symbols),
    )
    return emits, said


def meta(window: int, max_symbols: int) -> dict[str, int]:
    """What the kernel is compiled for."""
    return {"WINDOW": window, "MAX_SYMBOLS": max_symbols, "ROWS": ROWS, "num_warps": 1}


@triton.jit(do_not_specialize=["rows", "columns", "blank"])
def label_step_kernel(
    ids,
    duration,
    log_probabilities,
    confidences,
    durations,
    counts,
    decoded,
    times,
    repeats,
    token_ids,
    token_steps,
    token_durations,
    token_log_probabilities,
    token_confidences,
    token_counts,
    emits,
    said,
    rows,
    columns,
    blank,
    WINDOW: tl.constexpr,
    MAX_SYMBOLS: tl.constexpr,
    ROWS: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    there = row < rows
    time = tl.load(times + row, mask=there, other=0)
    count = tl.load(counts + row, mask=there, other=0)
    repeat = tl.load(repeats + row, mask=there, other=0)
    written = tl.load(token_counts + row, mask=there, other=0)
    before = tl.load(decoded + row, mask=there, other=0)

    offset = tl.zeros((ROWS,), tl.int64)
    token = tl.zeros((ROWS,), tl.int64)
    jump = tl.zeros((ROWS,), tl.int64)
    log_probability = tl.zeros((ROWS,), tl.float32)
    confidence = tl.zeros((ROWS,), tl.float32)
    for step in tl.static_range(WINDOW):
        at = row * WINDOW + step
        best = tl.load(ids + at, mask=there, other=0)
        is_blank = best == blank
        jumps = is_blank.to(tl.int64)
        if duration is not None:
            jumps = tl.load(durations + tl.load(duration + at, mask=there, other=0), mask=there, other=0)
            jumps = tl.where(is_blank, tl.maximum(jumps, 1), jumps)
        # Jumps of blanks are no less than 1, so a row that has come to a step never comes to one before it.
        stands = offset == step
        token = tl.where(stands, best, token)
        jump = tl.where(stands, jumps, jump)
        log_probability = tl.where(stands, tl.load(log_probabilities + at, mask=there, other=0.0), log_probability)
        confidence = tl.where(stands, tl.load(confidences + at, mask=there, other=0.0), confidence)
        offset += tl.where(stands & is_blank & (step < count - time), jumps, 0)

    time += offset
    emitted = there & (offset < WINDOW) & (time < count)
    to = row * columns + written
    tl.store(token_ids + to, token, mask=emitted)
    tl.store(token_steps + to, time + before, mask=emitted)
    tl.store(token_durations + to, jump if duration is not None else tl.maximum(jump, 1), mask=emitted)
    tl.store(token_log_probabilities + to, log_probability, mask=emitted)
    tl.store(token_confidences + to, confidence, mask=emitted)
    tl.store(token_counts + row, written + 1, mask=emitted)

    repeat = tl.where(offset > 0, 0, repeat) + (emitted & (jump == 0)).to(tl.int64)
    moved = tl.where(emitted, jump, 0) + (repeat >= MAX_SYMBOLS).to(tl.int64)
    tl.store(times + row, time + moved, mask=there)
    tl.store(repeats + row, tl.where(moved > 0, 0, repeat), mask=there)
    tl.store(emits + row, emitted, mask=there)
    tl.store(said + row, token, mask=there)
