"""Split reduction: each program handles a block of rows and a share of the tokens; a second kernel joins the shares."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["best_tokens_kernel", "join_meta", "join_shares_kernel", "launch", "meta"]

PROGRAMS = 264
"""Target number of programs: two for each multiprocessor of an H200."""
TOKENS, DEPTH = 64, 32
"""Size of a tile. One row of 8,192 tokens then has as many programs as an H200 has multiprocessors; with many rows the
float32 sums still fit into registers, with and without tensor cores."""
JOINED = 8
"""Rows per program of the joining kernel."""


def launch(hidden: Tensor, weight: Tensor, bias: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Like `token_scores.best_tokens`. Raises ValueError for tensors whose last dimension is not contiguous."""
    (rows, width), tokens, device = hidden.shape, len(bias), hidden.device
    if not hidden.stride(1) == weight.stride(1) == bias.stride(0) == 1:
        raise ValueError("the last dimension of hidden, weight and bias must be contiguous")
    constants = meta(rows, width)
    row_blocks, tiles = triton.cdiv(rows, constants["ROWS"]), triton.cdiv(tokens, TOKENS)
    share = triton.cdiv(tiles, min(tiles, triton.cdiv(PROGRAMS, row_blocks))) * TOKENS
    shares = triton.cdiv(tokens, share)
    parts = torch.empty(3, rows, shares, dtype=torch.float32, device=device)
    best = torch.empty(rows, shares, dtype=torch.int32, device=device)
    best_tokens_kernel[(row_blocks, shares)](
        *(hidden, weight, bias, *parts, best, rows, tokens, share, alpha),
        *(hidden.stride(0), weight.stride(0)),
        **constants,
    )
    ids = torch.empty(rows, dtype=torch.int64, device=device)
    scores = torch.empty(2, rows, dtype=torch.float32, device=device)
    largest = tokens ** (1 - alpha) - 1
    join_shares_kernel[(triton.cdiv(rows, JOINED),)](
        *(*parts, best, ids, *scores, rows, tokens, shares, alpha, largest),
        **join_meta(shares),
    )
    return ids, scores[0], scores[1]


def meta(rows: int, width: int) -> dict[str, int | str]:
    """Compile-time arguments of the first kernel. float32 products follow torch's matmul precision setting."""
    return {
        "WIDTH": width,
        "ROWS": min(64, max(16, triton.next_power_of_2(rows))),
        "TOKENS": TOKENS,
        "DEPTH": DEPTH,
        "PRECISION": "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32",
        "num_warps": 4,
        "num_stages": 4,
    }


def join_meta(shares: int) -> dict[str, int]:
    """Compile-time arguments of the joining kernel."""
    return {"ROWS": JOINED, "SHARES": triton.next_power_of_2(shares), "num_warps": 4}


@triton.jit(do_not_specialize=["rows", "tokens"])
def best_tokens_kernel(
    hidden,
    weight,
    bias,
    tops,
    sums,
    powers,
    best,
    rows,
    tokens,
    share,
    alpha,
    hidden_stride,
    weight_stride,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column, depth = tl.arange(0, TOKENS), tl.arange(0, DEPTH)
    hidden += row.to(tl.int64)[:, None] * hidden_stride + depth[None, :]
    running_max = tl.full((ROWS,), float("-inf"), tl.float32)
    token = tl.zeros((ROWS,), tl.int32)
    total = tl.zeros((ROWS,), tl.float32)
    power = tl.zeros((ROWS,), tl.float32)
    first = tl.program_id(1) * share
    for at in range(first, tl.minimum(first + share, tokens), TOKENS):
        valid = at + column < tokens
        weights = weight + (at + column)[None, :] * weight_stride + depth[:, None]
        logits = tl.zeros((ROWS, TOKENS), tl.float32)
        for k in range(0, WIDTH, DEPTH):
            valid_depth = k + depth < WIDTH
            x = tl.load(hidden + k, mask=(row < rows)[:, None] & valid_depth[None, :], other=0.0)
            w = tl.load(weights + k, mask=valid_depth[:, None] & valid[None, :], other=0.0)
            logits = tl.dot(x, w, logits, input_precision=PRECISION)
        logits += tl.load(bias + at + column, mask=valid, other=0.0).to(tl.float32)[None, :]
        logits = tl.where(valid[None, :], logits, float("-inf"))
        highest, index = tl.max(logits, 1, return_indices=True)
        token = tl.where(highest > running_max, at + index, token)
        new_max = tl.maximum(running_max, highest)
        rescale, shifted = running_max - new_max, logits - new_max[:, None]
        total = total * tl.exp(rescale) + tl.sum(tl.exp(shifted), 1)
        power = power * tl.exp(alpha * rescale) + tl.sum(tl.exp(alpha * shifted), 1)
        running_max = new_max
    target = row.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    tl.store(tops + target, running_max, mask=row < rows)
    tl.store(sums + target, total, mask=row < rows)
    tl.store(powers + target, power, mask=row < rows)
    tl.store(best + target, token, mask=row < rows)


@triton.jit(do_not_specialize=["rows", "tokens", "shares"])
def join_shares_kernel(
    tops,
    sums,
    powers,
    best,
    ids,
    log_probabilities,
    confidences,
    rows,
    tokens,
    shares,
    alpha,
    largest,
    ROWS: tl.constexpr,
    SHARES: tl.constexpr,
):
    # Rows beyond the end repeat the last row.
    row = tl.minimum(tl.program_id(0) * ROWS + tl.arange(0, ROWS), rows - 1)
    column = tl.arange(0, SHARES)[None, :]
    valid = column < shares
    at = row.to(tl.int64)[:, None] * shares + column
    maxima = tl.load(tops + at, mask=valid, other=float("-inf"))
    running_max = tl.max(maxima, 1)[:, None]
    # NaN logits have no maximum: return a valid id.
    token = tl.where(maxima == running_max, tl.load(best + at, mask=valid, other=0), tokens - 1)
    total = tl.sum(tl.load(sums + at, mask=valid, other=0.0) * tl.exp(maxima - running_max), 1)
    power = tl.sum(tl.load(powers + at, mask=valid, other=0.0) * tl.exp(alpha * (maxima - running_max)), 1)
    logarithm = tl.log(total)
    tl.store(ids + row, tl.min(token, 1).to(tl.int64))
    tl.store(log_probabilities + row, -logarithm)
    confidence = 1.0 - (power * tl.exp(-alpha * logarithm) - 1.0) / largest
    tl.store(confidences + row, confidence)
