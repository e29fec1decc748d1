"""One program a tile of queries and a head; keys pass by in tiles, with a running softmax.

Products of queries and positions come by distance, in blocks as wide as a tile of keys. A tile of queries is two such
blocks long, so a tile of scores needs three of them, of which two are those of the tile before. Row i wants them from
column QUERIES - 1 - i on: each block is turned by as much, once, and then every score is where its key is, in one of
the three. The older two are kept as one that has what the next tile will take of them.

Products of the two biases come as vectors from a pass before, so that queries go from memory into the matrix units as
they are: with sums of them in its registers the loop has none left.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["attend_clip_kernel", "launch", "meta", "multiply_rows_kernel", "rows_meta"]

QUERIES, KEYS = 64, 32
LOG2_E = tl.constexpr(1.4426950408889634)


def launch(
    query: Tensor, key: Tensor, value: Tensor, positions: Tensor, bias_u: Tensor, bias_v: Tensor, counts: Tensor
) -> Tensor:
    """As `clip_attention.attend_clip`. Raises ValueError for tensors that do not lie as it says there."""
    batch, steps, heads, width = query.shape
    if not query.stride() == key.stride() == value.stride() or query.stride(3) != 1:
        raise ValueError(f"strides {query.stride()}, {key.stride()}, {value.stride()}: make views of one tensor")
    if positions.stride(2) != 1 or not (bias_u.is_contiguous() and bias_v.is_contiguous()):
        raise ValueError("the width of positions, and the biases, must be contiguous")
    out = torch.empty(batch, steps, heads * width, dtype=query.dtype, device=query.device)
    attend_clip_kernel[(triton.cdiv(steps, QUERIES), batch * heads)](
        *(query, key, value, positions, out, counts, steps),
        _multiply_rows(key.transpose(1, 2), bias_u),
        _multiply_rows(positions[None], bias_v),
        *query.stride()[:3],
        *positions.stride()[:2],
        **meta(heads, width),
    )
    return out


def _multiply_rows(rows: Tensor, vectors: Tensor) -> Tensor:
    """rows [B, h, N, d] with vectors [h, d] -> [B, h, N] in float32."""
    batch, heads, count, width = rows.shape
    out = torch.empty(batch, heads, count, dtype=torch.float32, device=rows.device)
    grid = (triton.cdiv(count, QUERIES), batch * heads)
    multiply_rows_kernel[grid](rows, vectors, out, count, *rows.stride()[:3], **rows_meta(heads, width))
    return out


def meta(heads: int, width: int) -> dict[str, int]:
    """What the kernel is compiled for: a multiprocessor of an H200 has room for two such programs."""
    return {**_shape(heads, width), "QUERIES": QUERIES, "KEYS": KEYS, "num_warps": 4, "num_stages": 2}


def rows_meta(heads: int, width: int) -> dict[str, int]:
    """The same of the pass before."""
    return {**_shape(heads, width), "ROWS": QUERIES, "num_warps": 4}


def _shape(heads: int, width: int) -> dict[str, int]:
    return {"HEADS": heads, "WIDTH": width, "COLUMNS": max(16, triton.next_power_of_2(width))}


@triton.jit
def _load(rows, first, last, stride, BLOCK: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows first .. first + BLOCK - 1, zero where they are not in 0 .. last - 1."""
    row, column = first + tl.arange(0, BLOCK)[:, None], tl.arange(0, COLUMNS)[None, :]
    there = (row >= 0) & (row < last) & (column < WIDTH)
    return tl.load(rows + row * stride + column, mask=there, other=0.0)


@triton.jit
def _load_line(line, first, last, BLOCK: tl.constexpr):
    """Numbers first .. first + BLOCK - 1 as a row, zero where they are not in 0 .. last - 1."""
    place = first + tl.arange(0, BLOCK)[None, :]
    return tl.load(line + place, mask=(place >= 0) & (place < last), other=0.0)


@triton.jit(do_not_specialize=["count"])
def multiply_rows_kernel(
    rows,
    vectors,
    out,
    count,
    batch_stride,
    head_stride,
    row_stride,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
):
    first, pair = tl.program_id(0) * ROWS, tl.program_id(1).to(tl.int64)
    head = pair % HEADS
    rows += pair // HEADS * batch_stride + head * head_stride
    block = _load(rows, first, count, row_stride, ROWS, WIDTH, COLUMNS).to(tl.float32)
    vector = _load(vectors, head, HEADS, WIDTH, 1, WIDTH, COLUMNS).to(tl.float32)
    row = first + tl.arange(0, ROWS)
    tl.store(out + pair * count + row, tl.sum(block * vector, 1), mask=row < count)


@triton.jit(do_not_specialize=["steps"])
def attend_clip_kernel(
    query,
    key,
    value,
    positions,
    out,
    counts,
    steps,
    key_bias,
    position_bias,
    batch_stride,
    step_stride,
    head_stride,
    position_head,
    position_stride,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    first, pair = tl.program_id(0) * QUERIES, tl.program_id(1).to(tl.int64)
    b, head = pair // HEADS, pair % HEADS
    count = tl.load(counts + b).to(tl.int32)
    own = b * batch_stride + head * head_stride
    asks = _load(query + own, first, steps, step_stride, QUERIES, WIDTH, COLUMNS)
    key_bias += pair * steps
    # Positions begin at distance steps - 1; the farthest here is that of the last query and key 0.
    farthest, distances = steps - first - QUERIES, 2 * steps - 1
    positions += head * position_head
    position_bias += head * distances

    i, j = tl.arange(0, QUERIES)[:, None], tl.arange(0, KEYS)[None, :]
    turn = (j - i - 1) & (KEYS - 1)
    block = _load(positions, farthest, distances, position_stride, KEYS, WIDTH, COLUMNS)
    bias = _load_line(position_bias, farthest, distances, KEYS)
    older = tl.gather(tl.dot(asks, tl.trans(block), input_precision="ieee") + bias, turn, 1)
    block = _load(positions, farthest + KEYS, distances, position_stride, KEYS, WIDTH, COLUMNS)
    bias = _load_line(position_bias, farthest + KEYS, distances, KEYS)
    last = tl.gather(tl.dot(asks, tl.trans(block), input_precision="ieee") + bias, turn, 1)
    older = tl.where(j > i - KEYS, last, older)

    scale: tl.constexpr = WIDTH**-0.5 * LOG2_E
    mixed = tl.zeros((QUERIES, COLUMNS), tl.float32)
    top = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    seen = tl.where(first < count, count, 0)
    for at in range(0, seen, KEYS):
        nearer = farthest + at + QUERIES
        block = _load(positions, nearer, distances, position_stride, KEYS, WIDTH, COLUMNS)
        bias = _load_line(position_bias, nearer, distances, KEYS)
        newest = tl.gather(tl.dot(asks, tl.trans(block), input_precision="ieee") + bias, turn, 1)
        near = tl.where(j > i, newest, older)
        older = tl.where(j > i - KEYS, newest, last)
        last = newest
        block = _load(key + own, at, count, step_stride, KEYS, WIDTH, COLUMNS)
        scores = tl.dot(asks, tl.trans(block), input_precision="ieee") + near
        scores = (scores + _load_line(key_bias, at, count, KEYS)) * scale
        scores = tl.where(at + j < count, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        fade = tl.exp2(top - higher)
        top = higher
        total = total * fade + tl.sum(weights, 1)
        block = _load(value + own, at, count, step_stride, KEYS, WIDTH, COLUMNS)
        mixed = tl.dot(weights.to(block.dtype), block, mixed * fade[:, None], input_precision="ieee")

    # At least 1 where anything is seen: the largest score adds exp2(0).
    mixed = mixed / tl.maximum(total, 1.0)[:, None]
    step, column = first + i, tl.arange(0, COLUMNS)[None, :]
    to = ((b * steps + step) * HEADS + head) * WIDTH + column
    tl.store(out + to, mixed, mask=(step < steps) & (column < WIDTH))
