"""Flash attention with relative positions: one program per tile of queries and head, an online softmax over key tiles.

Position scores are computed by distance, in blocks as wide as a key tile. A query tile spans two blocks, so a tile of
scores needs three blocks, two of which the previous tile has computed. Row i needs columns from QUERIES - 1 - i on:
each block is rotated by that amount once, which puts every score into the column of its key in one of the three blocks.
The two older blocks are merged into one that holds what the next tile needs of them.

The products of the two biases are computed by a separate kernel before, so that queries go from memory to the tensor
cores unchanged: keeping biased copies of them would exceed the registers.
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
    """Like `clip_attention.attend_clip`. Raises ValueError for tensors with an unsupported memory layout."""
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
    """Products of rows [B, h, N, d] and vectors [h, d] -> [B, h, N] in float32."""
    batch, heads, count, width = rows.shape
    out = torch.empty(batch, heads, count, dtype=torch.float32, device=rows.device)
    grid = (triton.cdiv(count, QUERIES), batch * heads)
    multiply_rows_kernel[grid](rows, vectors, out, count, *rows.stride()[:3], **rows_meta(heads, width))
    return out


def meta(heads: int, width: int) -> dict[str, int]:
    """Compile-time arguments; a multiprocessor of an H200 fits two programs of this size."""
    return {**_shape(heads, width), "QUERIES": QUERIES, "KEYS": KEYS, "num_warps": 4, "num_stages": 2}


def rows_meta(heads: int, width: int) -> dict[str, int]:
    """Compile-time arguments of `multiply_rows_kernel`."""
    return {**_shape(heads, width), "ROWS": QUERIES, "num_warps": 4}


def _shape(heads: int, width: int) -> dict[str, int]:
    return {"HEADS": heads, "WIDTH": width, "COLUMNS": max(16, triton.next_power_of_2(width))}


@triton.jit
def _load(rows, first, last, stride, BLOCK: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows first .. first + BLOCK - 1; rows outside 0 .. last - 1 are zeros."""
    row, column = first + tl.arange(0, BLOCK)[:, None], tl.arange(0, COLUMNS)[None, :]
    valid = (row >= 0) & (row < last) & (column < WIDTH)
    return tl.load(rows + row * stride + column, mask=valid, other=0.0)


@triton.jit
def _load_line(line, first, last, BLOCK: tl.constexpr):
    """Elements first .. first + BLOCK - 1 as a row; elements outside 0 .. last - 1 are zeros."""
    index = first + tl.arange(0, BLOCK)[None, :]
    return tl.load(line + index, mask=(index >= 0) & (index < last), other=0.0)


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
    offset = b * batch_stride + head * head_stride
    queries = _load(query + offset, first, steps, step_stride, QUERIES, WIDTH, COLUMNS)
    key_bias += pair * steps
    # Positions begin at distance steps - 1. The largest distance of this tile is between its last query and key 0.
    farthest, distances = steps - first - QUERIES, 2 * steps - 1
    positions += head * position_head
    position_bias += head * distances

    i, j = tl.arange(0, QUERIES)[:, None], tl.arange(0, KEYS)[None, :]
    rotation = (j - i - 1) & (KEYS - 1)
    block = _load(positions, farthest, distances, position_stride, KEYS, WIDTH, COLUMNS)
    bias = _load_line(position_bias, farthest, distances, KEYS)
    older = tl.gather(tl.dot(queries, tl.trans(block), input_precision="ieee") + bias, rotation, 1)
    block = _load(positions, farthest + KEYS, distances, position_stride, KEYS, WIDTH, COLUMNS)
    bias = _load_line(position_bias, farthest + KEYS, distances, KEYS)
    last = tl.gather(tl.dot(queries, tl.trans(block), input_precision="ieee") + bias, rotation, 1)
    older = tl.where(j > i - KEYS, last, older)

    scale: tl.constexpr = WIDTH**-0.5 * LOG2_E
    mixed = tl.zeros((QUERIES, COLUMNS), tl.float32)
    running_max = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    key_count = tl.where(first < count, count, 0)
    for at in range(0, key_count, KEYS):
        newest_place = farthest + at + QUERIES
        block = _load(positions, newest_place, distances, position_stride, KEYS, WIDTH, COLUMNS)
        bias = _load_line(position_bias, newest_place, distances, KEYS)
        newest = tl.gather(tl.dot(queries, tl.trans(block), input_precision="ieee") + bias, rotation, 1)
        position_scores = tl.where(j > i, newest, older)
        older = tl.where(j > i - KEYS, newest, last)
        last = newest
        block = _load(key + offset, at, count, step_stride, KEYS, WIDTH, COLUMNS)
        scores = tl.dot(queries, tl.trans(block), input_precision="ieee") + position_scores
        scores = (scores + _load_line(key_bias, at, count, KEYS)) * scale
        scores = tl.where(at + j < count, scores, float("-inf"))
        new_max = tl.maximum(running_max, tl.max(scores, 1))
        weights = tl.exp2(scores - new_max[:, None])
        rescale = tl.exp2(running_max - new_max)
        running_max = new_max
        total = total * rescale + tl.sum(weights, 1)
        block = _load(value + offset, at, count, step_stride, KEYS, WIDTH, COLUMNS)
        mixed = tl.dot(weights.to(block.dtype), block, mixed * rescale[:, None], input_precision="ieee")

    # At least 1 if any key is visible: the largest score adds exp2(0).
    mixed = mixed / tl.maximum(total, 1.0)[:, None]
    step, column = first + i, tl.arange(0, COLUMNS)[None, :]
    target = ((b * steps + step) * HEADS + head) * WIDTH + column
    tl.store(out + target, mixed, mask=(step < steps) & (column < WIDTH))
