"""One program per ROWS rows, one row per lane; one pass over the window follows each row's jumps."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from conure.fused.label_step import Rules, TokenColumns, WindowScores, durations_tensor

__all__ = ["label_step_kernel", "launch", "meta"]

ROWS = 32


def launch(
    scored: WindowScores,
    counts: Tensor,
    decoded: Tensor,
    time: Tensor,
    repeats: Tensor,
    written: TokenColumns,
    rules: Rules,
) -> tuple[Tensor, Tensor]:
    """Like `label_step.label_step`. Raises ValueError for tensors that are not contiguous."""
    ids, duration, *_ = scored
    parts = (*(part for part in scored if part is not None), counts, decoded, time, repeats, *written)
    if not all(part.is_contiguous() for part in parts):
        raise ValueError("scores, counts, the cursor and the token columns must be contiguous")
    rows, window = ids.shape
    emits = torch.empty(rows, dtype=torch.bool, device=ids.device)
    tokens = torch.empty_like(counts)
    table = None if duration is None else durations_tensor(rules.durations, ids.device)
    label_step_kernel[(triton.cdiv(rows, ROWS),)](
        *(*scored, table, counts, decoded, time, repeats, *written, emits, tokens),
        *(rows, written[0].shape[1], rules.blank),
        **meta(window, rules.max_symbols),
    )
    return emits, tokens


def meta(window: int, max_symbols: int) -> dict[str, int]:
    """Compile-time arguments."""
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
    tokens,
    rows,
    columns,
    blank,
    WINDOW: tl.constexpr,
    MAX_SYMBOLS: tl.constexpr,
    ROWS: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    valid = row < rows
    time = tl.load(times + row, mask=valid, other=0)
    count = tl.load(counts + row, mask=valid, other=0)
    repeat = tl.load(repeats + row, mask=valid, other=0)
    written = tl.load(token_counts + row, mask=valid, other=0)
    decoded_before = tl.load(decoded + row, mask=valid, other=0)

    offset = tl.zeros((ROWS,), tl.int64)
    token = tl.zeros((ROWS,), tl.int64)
    jump = tl.zeros((ROWS,), tl.int64)
    log_probability = tl.zeros((ROWS,), tl.float32)
    confidence = tl.zeros((ROWS,), tl.float32)
    for step in tl.static_range(WINDOW):
        at = row * WINDOW + step
        best = tl.load(ids + at, mask=valid, other=0)
        is_blank = best == blank
        jumps = is_blank.to(tl.int64)
        if duration is not None:
            jumps = tl.load(durations + tl.load(duration + at, mask=valid, other=0), mask=valid, other=0)
            jumps = tl.where(is_blank, tl.maximum(jumps, 1), jumps)
        # Blanks advance by at least 1, so a row never returns to an earlier step.
        is_current = offset == step
        token = tl.where(is_current, best, token)
        jump = tl.where(is_current, jumps, jump)
        log_probability = tl.where(is_current, tl.load(log_probabilities + at, mask=valid, other=0.0), log_probability)
        confidence = tl.where(is_current, tl.load(confidences + at, mask=valid, other=0.0), confidence)
        offset += tl.where(is_current & is_blank & (step < count - time), jumps, 0)

    time += offset
    emitted = valid & (offset < WINDOW) & (time < count)
    target = row * columns + written
    tl.store(token_ids + target, token, mask=emitted)
    tl.store(token_steps + target, time + decoded_before, mask=emitted)
    tl.store(token_durations + target, jump if duration is not None else tl.maximum(jump, 1), mask=emitted)
    tl.store(token_log_probabilities + target, log_probability, mask=emitted)
    tl.store(token_confidences + target, confidence, mask=emitted)
    tl.store(token_counts + row, written + 1, mask=emitted)

    repeat = tl.where(offset > 0, 0, repeat) + (emitted & (jump == 0)).to(tl.int64)
    advance = tl.where(emitted, jump, 0) + (repeat >= MAX_SYMBOLS).to(tl.int64)
    tl.store(times + row, time + advance, mask=valid)
    tl.store(repeats + row, tl.where(advance > 0, 0, repeat), mask=valid)
    tl.store(emits + row, emitted, mask=valid)
    tl.store(tokens + row, token, mask=valid)
