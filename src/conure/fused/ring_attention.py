"""Attention of one chunk of streams over ring buffers of past keys and values, one ring per slot, updated in place.

Scores are those of `models/attention.py`. A step attends to its chunk and to the whole past chunks that the ring holds.
Step t of a stream is at index t % L of its ring, so nothing is ever moved or copied.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conure.fused.available import has_fused_kernels

__all__ = ["attend_ring", "attend_ring_reference"]


def attend_ring(
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
    *,
    kernels: bool | None = None,
) -> Tensor:
    """One chunk of C steps -> attended values [B, C, h * d]; writes its keys and values to the rings.

    query, key and value [B, C, h, d] must be views of one tensor. `keys` and `values` are the rings [slots, h, L, d],
    L >= C. Row b reads slots[b] and writes write_slots[b]: the same slot, or the scratch slot for rows that are
    flushed, which several rows may share. `age` [B] counts the steps of a row before the chunk, `counts` [B] its valid
    steps in the chunk. Rows with count 0 return zeros, write nothing and may share a slot.

    Position scores are inputs, for descending distances L + C - 1 .. 1 - C: position_scores [h, B * C, P] of the
    queries and position_bias [h, P] of the bias; columns beyond L + 2C - 1 are ignored. bias_u [h, d] is added to
    queries before the products with keys.
    """
    args = (query, position_scores, position_bias, bias_u, key, value, keys, values, slots, write_slots, age, counts)
    if has_fused_kernels(query.device) if kernels is None else kernels:
        from conure.fused.ring_attention_kernel import launch

        return launch(*args)
    return attend_ring_reference(*args)


def attend_ring_reference(
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
    """Reference implementation, on copies of the rings."""
    batch, chunk, heads, width = query.shape
    past = keys.shape[2]
    distance, visible = _visibility(age, counts, chunk, past)
    all_keys, all_values = (
        torch.cat([ring[slots], new.transpose(1, 2)], 2) for ring, new in ((keys, key), (values, value))
    )
    content = (query.transpose(1, 2) + bias_u[:, None]) @ all_keys.transpose(-1, -2)  # [B, h, C, L + C]
    distance_scores = position_scores.view(heads, batch, chunk, -1).transpose(0, 1) + position_bias[:, None]
    column = (past + chunk - 1 - distance)[:, None].expand_as(content)
    scores = (content + distance_scores.gather(3, column)).float() * width**-0.5
    scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).masked_fill(~visible, 0.0).to(value.dtype)
    mixed: Tensor = weights @ all_values.masked_fill(~visible.transpose(-1, -2), 0.0)
    _write(keys, key, write_slots, age, counts)
    _write(values, value, write_slots, age, counts)
    return mixed.transpose(1, 2).flatten(2)


def _visibility(age: Tensor, counts: Tensor, chunk: int, past: int) -> tuple[Tensor, Tensor]:
    """Distances of keys from queries, [B, C, L + C], and the mask of visible keys, [B, 1, 1, L + C]."""
    index = torch.arange(past, device=age.device)
    step = torch.arange(chunk, device=age.device)
    steps_back = (age[:, None] - 1 - index) % past + 1  # distance to the first query, [B, L]
    offsets = torch.cat([steps_back, (-step).expand(len(age), -1)], 1)
    visible = torch.cat([steps_back <= age.clamp(max=past // chunk * chunk)[:, None], step < counts[:, None]], 1)
    visible = visible & (counts > 0)[:, None]
    return step[:, None] + offsets[:, None], visible[:, None, None]


def _write(ring: Tensor, new: Tensor, slots: Tensor, age: Tensor, counts: Tensor) -> None:
    """Writes new [B, C, h, d] into ring [slots, h, L, d]; invalid steps rewrite the old contents."""
    step = torch.arange(new.shape[1], device=age.device)
    at = (slots[:, None], slice(None), (age[:, None] + step) % ring.shape[2])
    ring[at] = torch.where((step < counts[:, None])[..., None, None], new, ring[at])
