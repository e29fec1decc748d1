"""Programs take some rows and a share of the tokens; a second kernel puts the shares together."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["best_tokens_kernel", "join_meta", "join_shares_kernel", "launch", "meta"]

PROGRAMS = 264
"""Shares are made until there are so many programs: two for each multiprocessor of an H200."""
TOKENS, DEPTH = 64, 32
"""Of a tile: for one row there are then as many programs as an H200 has multiprocessors, each with a share of 8,192
tokens; for many, sums of float32 stay in registers, also where no tensor core makes them."""
JOINED = 8
"""Rows that a program joins the shares of."""


def launch(hidden: Tensor, weight: Tensor, bias: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """As `token_scores.best_tokens`. Raises ValueError for tensors whose last dimension is not contiguous."""
    (rows, width), tokens, device = hidden.shape, len(bias), hidden.device
    if not hidden.stride(1) == weight.stride(1) == bias.stride(0) == 1:
        raise ValueError("the last dimension of hidden, weight and bias must be contiguous")
    made_for = meta(rows, width)
    row_blocks, tiles = triton.cdiv(rows, made_for["ROWS"]), triton.cdiv(tokens, TOKENS)
    share = triton.cdiv(tiles, min(tiles, triton.cdiv(PROGRAMS, row_blocks))) * TOKENS
    shares = triton.cdiv(tokens, share)
    parts = torch.empty(3, rows, shares, dtype=torch.float32, device=device)
    best = torch.empty(rows, shares, dtype=torch.int32, device=device)
    best_tokens_kernel[(row_blocks, shares)](
        *(hidden, weight, bias, *parts, best, rows, tokens, share, alpha),
        *(hidden.stride(0), weight.stride(0)),
        **made_for,
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
    """What the first kernel is compiled for. Products of float32 are made as torch is told to make its own."""
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
    """What the second one is compiled for."""
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
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    token = tl.zeros((ROWS,), tl.int32)
    total = tl.zeros((ROWS,), tl.float32)
    power = tl.zeros((ROWS,), tl.float32)
    first = tl.program_id(1) * share
    for at in range(first, tl.minimum(first + share, tokens), TOKENS):
        there = at + column < tokens
        weights = weight + (at + column)[None, :] * weight_stride + depth[:, None]
        logits = tl.zeros((ROWS, TOKENS), tl.float32)
        for k in range(0, WIDTH, DEPTH):
            deep = k + depth < WIDTH
            x = tl.load(hidden + k, mask=(row < rows)[:, None] & deep[None, :], other=0.0)
            w = tl.load(weights + k, mask=deep[:, None] & there[None, :], other=0.0)
            logits = tl.dot(x, w, logits, input_precision=PRECISION)
        logits += tl.load(bias + at + column, mask=there, other=0.0).to(tl.float32)[None, :]
        logits = tl.where(there[None, :], logits, float("-inf"))
        highest, place = tl.max(logits, 1, return_indices=True)
        token = tl.where(highest > top, at + place, token)
        higher = tl.maximum(top, highest)
        fade, less = top - higher, logits - higher[:, None]
        total = total * tl.exp(fade) + tl.sum(tl.exp(less), 1)
        power = power * tl.exp(alpha * fade) + tl.sum(tl.exp(alpha * less), 1)
        top = higher
    to = row.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    tl.store(tops + to, top, mask=row < rows)
    tl.store(sums + to, total, mask=row < rows)
    tl.store(powers + to, power, mask=row < rows)
    tl.store(best + to, token, mask=row < rows)


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
    # Past the end the last row is joined again.
    row = tl.minimum(tl.program_id(0) * ROWS + tl.arange(0, ROWS), rows - 1)
    column = tl.arange(0, SHARES)[None, :]
    there = column < shares
    at = row.to(tl.int64)[:, None] * shares + column
    heights = tl.load(tops + at, mask=there, other=float("-inf"))
    top = tl.max(heights, 1)[:, None]
    # Logits that are no numbers have no best token; an id that exists is given all the same.
    token = tl.where(heights == top, tl.load(best + at, mask=there, other=0), tokens - 1)
    total = tl.sum(tl.load(sums + at, mask=there, other=0.0) * tl.exp(heights - top), 1)
    power = tl.sum(tl.load(powers + at, mask=there, other=0.0) * tl.exp(alpha * (heights - top)), 1)
    logarithm = tl.log(total)
    tl.store(ids + row, tl.min(token, 1).to(tl.int64))
    tl.store(log_probabilities + row, -logarithm)
    confidence = 1.0 - (power * tl.exp(-alpha * logarithm) - 1.0) / largest
    tl.store(confidences + row, confidence)
