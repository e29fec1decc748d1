"""One program per row and head: reads the ring and the chunk, attends, then writes the chunk into the ring."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["attend_ring_kernel", "launch", "meta"]

TILE = 16
"""Minimal size of each dimension of a `tl.dot`."""


def launch(
    query: Tensor,
    position_scores: Tensor,
    position_bias: Tensor,
    bias_u: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    write_slots: Tensor,
    age: Tensor,
    counts: Tensor,
) -> Tensor:
    """Like `ring_attention.attend_ring`. Raises ValueError for tensors with an unsupported memory layout."""
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
        *(
            query,
            key,
            value,
            position_scores,
            position_bias,
            bias_u,
            keys,
            values,
            slots,
            write_slots,
            age,
            counts,
            out,
        ),
        *query.stride()[:3],
        *position_scores.stride()[:2],
        position_bias.stride(0),
        **meta(heads, chunk, past, width),
    )
    return out


def meta(heads: int, chunk: int, past: int, width: int) -> dict[str, int]:
    """Compile-time arguments."""
    tiles = {"STEPS": chunk, "PLACES": past, "COLUMNS": width}
    padded = {name: max(TILE, triton.next_power_of_2(size)) for name, size in tiles.items()}
    return {"HEADS": heads, "CHUNK": chunk, "PAST": past, "WIDTH": width, **padded, "num_warps": 4}


@triton.jit
def _by_distance(position_scores, position_bias, column, mask):
    load_mask = tl.load(position_scores + column, mask=mask, other=0.0).to(tl.float32)
    return load_mask + tl.load(position_bias + column, mask=mask, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["position_head_stride", "position_step_stride", "position_bias_head_stride"])
def attend_ring_kernel(
    query,
    key,
    value,
    position_scores,
    position_bias,
    bias_u,
    keys,
    values,
    slots,
    write_slots,
    ages,
    counts,
    out,
    row_stride,
    step_stride,
    head_stride,
    position_head_stride,
    position_step_stride,
    position_bias_head_stride,
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
    slot, age, count = tl.load(slots + b), tl.load(ages + b), tl.load(counts + b)
    step, index, column = tl.arange(0, STEPS), tl.arange(0, PLACES), tl.arange(0, COLUMNS)
    inside = column < WIDTH
    in_chunk = step < CHUNK
    is_valid = in_chunk & (step < count)

    # The ring holds the last PAST steps; indices after the newest hold the oldest.
    newest = ((age + PAST - 1) % PAST).to(tl.int32)
    steps_back = 1 + newest - index + tl.where(index > newest, PAST, 0)
    reach = tl.minimum(age, PAST // CHUNK * CHUNK).to(tl.int32)
    is_visible = (index < PAST) & (steps_back <= reach) & (count > 0)

    at = b * row_stride + head * head_stride + step[:, None] * step_stride + column[None, :]
    load_mask = is_valid[:, None] & inside[None, :]
    ring = (slot * HEADS + head) * (PAST * WIDTH)
    past = ring + index[:, None] * WIDTH + column[None, :]
    ring_mask = is_visible[:, None] & inside[None, :]
    old_key = tl.load(keys + past, mask=ring_mask, other=0.0)
    old_value = tl.load(values + past, mask=ring_mask, other=0.0)
    new_key = tl.load(key + at, mask=load_mask, other=0.0)
    new_value = tl.load(value + at, mask=load_mask, other=0.0)
    queries = tl.load(query + at, mask=in_chunk[:, None] & inside[None, :], other=0.0)
    queries += tl.load(bias_u + head * WIDTH + column, mask=inside, other=0.0)[None, :]

    # Column PAST + CHUNK - 1 is distance 0.
    position_scores += (
        head * position_head_stride + (b * CHUNK + step[:, None]) * position_step_stride + (PAST + CHUNK - 1)
    )
    position_bias += head * position_bias_head_stride + (PAST + CHUNK - 1)
    old_mask = in_chunk[:, None] & is_visible[None, :]
    new_mask = in_chunk[:, None] & is_valid[None, :]
    old = tl.dot(queries, tl.trans(old_key), input_precision="ieee")
    old += _by_distance(position_scores, position_bias, -step[:, None] - steps_back[None, :], old_mask)
    new = tl.dot(queries, tl.trans(new_key), input_precision="ieee")
    new += _by_distance(position_scores, position_bias, step[None, :] - step[:, None], new_mask)

    scale: tl.constexpr = WIDTH**-0.5
    old = tl.where(old_mask, old * scale, -1e30)
    new = tl.where(new_mask, new * scale, -1e30)
    largest = tl.maximum(tl.max(old, 1), tl.max(new, 1))[:, None]
    old = tl.where(old_mask, tl.exp(old - largest), 0.0)
    new = tl.where(new_mask, tl.exp(new - largest), 0.0)
    # At least 1 if any key is visible: the largest score adds exp(0).
    total = tl.maximum(tl.sum(old, 1) + tl.sum(new, 1), 1.0)[:, None]
    mixed = tl.dot(old.to(old_value.dtype), old_value, input_precision="ieee")
    mixed += tl.dot(new.to(new_value.dtype), new_value, input_precision="ieee")
    target = ((b * CHUNK + step[:, None]) * HEADS + head) * WIDTH + column[None, :]
    tl.store(out + target, mixed / total, mask=in_chunk[:, None] & inside[None, :])

    # A full ring overwrites its oldest steps, so all threads must have read them before.
    tl.debug_barrier()
    ring = (tl.load(write_slots + b) * HEADS + head) * (PAST * WIDTH)
    past = ring + ((age + step) % PAST)[:, None] * WIDTH + column[None, :]
    tl.store(keys + past, new_key, mask=load_mask)
    tl.store(values + past, new_value, mask=load_mask)
