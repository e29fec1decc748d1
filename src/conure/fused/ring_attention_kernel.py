"""One program a row and head: it reads the ring and the chunk, attends, then writes the chunk into the ring."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["attend_ring_kernel", "launch", "meta"]

TILE = 16
"""The least that a matrix product takes of each dimension."""


def launch(
    query: Tensor,
    near: Tensor,
    near_bias: Tensor,
    bias_u: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    rows: Tensor,
    into: Tensor,
    age: Tensor,
    counts: Tensor,
) -> Tensor:
    """As `ring_attention.attend_ring`. Raises ValueError for tensors that do not lie as it says there."""
    batch, chunk, heads, width = query.shape
    past = keys.shape[2]
    if not query.stride() == key.stride() == value.stride() or query.stride(3) != 1:
        raise ValueError(f"strides {query.stride()}, {key.stride()}, {value.stride()}: make views of one tensor")
    if not (keys.is_contiguous() and values.is_contiguous() and bias_u.is_contiguous()):
        raise ValueError("rings and bias_u must be contiguous")
    if chunk > past:
        raise ValueError(f"a chunk of {chunk} steps does not fit into rings of {past}")
    out = torch.empty(batch, chunk, heads * width, dtype=query.dtype, device=query.device)
    attend_ring_kernel[(heads, batch)](
        *(query, key, value, near, near_bias, bias_u, keys, values, rows, into, age, counts, out),
        *query.stride()[:3],
        *near.stride()[:2],
        near_bias.stride(0),
        **meta(heads, chunk, past, width),
    )
    return out


def meta(heads: int, chunk: int, past: int, width: int) -> dict[str, int]:
    """What the kernel is compiled for."""
    tiles = {"STEPS": chunk, "PLACES": past, "COLUMNS": width}
    padded = {name: max(TILE, triton.next_power_of_2(size)) for name, size in tiles.items()}
    return {"HEADS": heads, "CHUNK": chunk, "PAST": past, "WIDTH": width, **padded, "num_warps": 4}


@triton.jit
def _by_distance(near, near_bias, column, mask):
    own = tl.load(near + column, mask=mask, other=0.0).to(tl.float32)
    return own + tl.load(near_bias + column, mask=mask, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["near_head", "near_step", "near_bias_head"])
def attend_ring_kernel(
    query,
    key,
    value,
    near,
    near_bias,
    bias_u,
    keys,
    values,
    rows,
    into,
    ages,
    counts,
    out,
    row_stride,
    step_stride,
    head_stride,
    near_head,
    near_step,
    near_bias_head,
    HEADS: tl.constexpr,
    CHUNK: tl.constexpr,
    PAST: tl.constexpr,
    WIDTH: tl.constexpr,
    STEPS: tl.constexpr,
    PLACES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    head = tl.program_id(0).to(tl.int64)
    b = tl.program_id(1).to(tl.int64)
    slot, age, count = tl.load(rows + b), tl.load(ages + b), tl.load(counts + b)
    step, place, column = tl.arange(0, STEPS), tl.arange(0, PLACES), tl.arange(0, COLUMNS)
    inside = column < WIDTH
    asked = step < CHUNK
    brought = asked & (step < count)

    # Places hold the last PAST steps; those after the newest are a turn older.
    newest = ((age + PAST - 1) % PAST).to(tl.int32)
    back = 1 + newest - place + tl.where(place > newest, PAST, 0)
    reach = tl.minimum(age, PAST // CHUNK * CHUNK).to(tl.int32)
    kept = (place < PAST) & (back <= reach) & (count > 0)

    at = b * row_stride + head * head_stride + step[:, None] * step_stride + column[None, :]
    own = brought[:, None] & inside[None, :]
    ring = (slot * HEADS + head) * (PAST * WIDTH)
    past = ring + place[:, None] * WIDTH + column[None, :]
    held = kept[:, None] & inside[None, :]
    old_key = tl.load(keys + past, mask=held, other=0.0)
    old_value = tl.load(values + past, mask=held, other=0.0)
    new_key = tl.load(key + at, mask=own, other=0.0)
    new_value = tl.load(value + at, mask=own, other=0.0)
    asks = tl.load(query + at, mask=asked[:, None] & inside[None, :], other=0.0)
    asks += tl.load(bias_u + head * WIDTH + column, mask=inside, other=0.0)[None, :]

    # Column PAST + CHUNK - 1 is of distance 0.
    near += head * near_head + (b * CHUNK + step[:, None]) * near_step + (PAST + CHUNK - 1)
    near_bias += head * near_bias_head + (PAST + CHUNK - 1)
    see_old = asked[:, None] & kept[None, :]
    see_new = asked[:, None] & brought[None, :]
    old = tl.dot(asks, tl.trans(old_key), input_precision="ieee")
    old += _by_distance(near, near_bias, -step[:, None] - back[None, :], see_old)
    new = tl.dot(asks, tl.trans(new_key), input_precision="ieee")
    new += _by_distance(near, near_bias, step[None, :] - step[:, None], see_new)

    scale: tl.constexpr = WIDTH**-0.5
    old = tl.where(see_old, old * scale, -1e30)
    new = tl.where(see_new, new * scale, -1e30)
    top = tl.maximum(tl.max(old, 1), tl.max(new, 1))[:, None]
    old = tl.where(see_old, tl.exp(old - top), 0.0)
    new = tl.where(see_new, tl.exp(new - top), 0.0)
    # At least 1 where anything is seen: the largest score adds exp(0).
    total = tl.maximum(tl.sum(old, 1) + tl.sum(new, 1), 1.0)[:, None]
    mixed = tl.dot(old.to(old_value.dtype), old_value, input_precision="ieee")
    mixed += tl.dot(new.to(new_value.dtype), new_value, input_precision="ieee")
    to = ((b * CHUNK + step[:, None]) * HEADS + head) * WIDTH + column[None, :]
    tl.store(out + to, mixed / total, mask=asked[:, None] & inside[None, :])

    # A full ring gives the places of its oldest steps away, which all threads must have read by now.
    tl.debug_barrier()
    ring = (tl.load(into + b) * HEADS + head) * (PAST * WIDTH)
    past = ring + ((age + step) % PAST)[:, None] * WIDTH + column[None, :]
    tl.store(keys + past, new_key, mask=own)
    tl.store(values + past, new_value, mask=own)
