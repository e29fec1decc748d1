"""Attention of one chunk of live streams whose past lies in rings, one a slot, read and written where it is.

Scores are those of `models/attention.py`. A step sees its whole chunk and the whole chunks before it that the ring
holds. Step t of a stream is at place t % L of its ring, so no row of it is ever moved or copied.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conure.fused.available import has_fused_kernels

__all__ = ["attend_ring", "attend_ring_plainly"]


def attend_ring(
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
    *,
    kernels: bool | None = None,
) -> Tensor:
    """One chunk of C steps -> mixed values [B, C, h * d]; its keys and values go into the rings.

    query, key and value [B, C, h, d] are views of one tensor. `keys` and `values` are the rings [slots, h, L, d] with
    L >= C, of which row b reads slot rows[b] and writes slot into[b]: the same one, or one that nobody reads, which
    rows may share, where the chunk is only tried. `age` [B] counts the steps a row has had, `counts` [B] those that it
    brings now, C at most. A row that brings none gets zeros and writes nothing; such rows may share a slot, too.

    Scores by distance are handed in, for distances L + C - 1 .. 1 - C, the largest first: near [h, B * C, P] are of
    the queries themselves and near_bias [h, P] of what is added to all of them; columns past L + 2C - 1 are ignored.
    bias_u [h, d] is added to queries where they meet keys.
    """
    given = (query, near, near_bias, bias_u, key, value, keys, values, rows, into, age, counts)
    if has_fused_kernels(query.device) if kernels is None else kernels:
        from conure.fused.ring_attention_kernel import launch

        return launch(*given)
    return attend_ring_plainly(*given)


def attend_ring_plainly(
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
    """The same from copies of the rings."""
    batch, chunk, heads, width = query.shape
    past = keys.shape[2]
    distance, seen = _sight(age, counts, chunk, past)
    all_keys, all_values = (
        torch.cat([ring[rows], new.transpose(1, 2)], 2) for ring, new in ((keys, key), (values, value))
    )
    content = (query.transpose(1, 2) + bias_u[:, None]) @ all_keys.transpose(-1, -2)  # [B, h, C, L + C]
    by_distance = near.view(heads, batch, chunk, -1).transpose(0, 1) + near_bias[:, None]
    column = (past + chunk - 1 - distance)[:, None].expand_as(content)
    scores = (content + by_distance.gather(3, column)).float() * width**-0.5
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).masked_fill(~seen, 0.0).to(value.dtype)
    mixed: Tensor = weights @ all_values.masked_fill(~seen.transpose(-1, -2), 0.0)
    _write(keys, key, into, age, counts)
    _write(values, value, into, age, counts)
    return mixed.transpose(1, 2).flatten(2)


def _sight(age: Tensor, counts: Tensor, chunk: int, past: int) -> tuple[Tensor, Tensor]:
    """How far keys lie from queries, [B, C, L + C], and which of them are seen, [B, 1, 1, L + C]."""
    place = torch.arange(past, device=age.device)
    step = torch.arange(chunk, device=age.device)
    back = (age[:, None] - 1 - place) % past + 1  # of the first query, [B, L]
    before = torch.cat([back, (-step).expand(len(age), -1)], 1)
    seen = torch.cat([back <= age.clamp(max=past // chunk * chunk)[:, None], step < counts[:, None]], 1)
    seen = seen & (counts > 0)[:, None]
    return step[:, None] + before[:, None], seen[:, None, None]


def _write(ring: Tensor, new: Tensor, rows: Tensor, age: Tensor, counts: Tensor) -> None:
    """new [B, C, h, d] into ring [slots, h, L, d]; what is not written is overwritten with itself."""
    step = torch.arange(new.shape[1], device=age.device)
    at = (rows[:, None], slice(None), (age[:, None] + step) % ring.shape[2])
    ring[at] = torch.where((step < counts[:, None])[..., None, None], new, ring[at])
