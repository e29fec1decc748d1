"""Attention with relative positions over whole clips, without the full score matrix in memory.

`attend_relative` is the general form for any mask; `models/attention.py` uses it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from conure.fused.available import has_fused_kernels

__all__ = ["ExtraKeys", "attend_clip", "attend_clip_reference", "attend_relative", "distance_to_key_scores"]


@dataclass(frozen=True)
class ExtraKeys:
    """Keys without a relative position, whose scores are already computed (global steps)."""

    scores: Tensor
    """[B, h, Q, G], masked."""
    values: Tensor
    """[B, h, G, d]"""


def attend_clip(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: Tensor,
    bias_u: Tensor,
    bias_v: Tensor,
    counts: Tensor,
    *,
    kernels: bool | None = None,
) -> Tensor:
    """Attention of clips, padded to T steps -> attended values [B, T, h * d].

    query, key and value [B, T, h, d] must be views of one tensor. positions [h, 2T - 1, d] are for distances T - 1 down
    to 1 - T. bias_u and bias_v [h, d] are added to queries before the products with keys and positions. Each step
    attends to the first counts[b] steps of its clip; the output for later steps is finite but undefined.
    """
    args = (query, key, value, positions, bias_u, bias_v, counts)
    if has_fused_kernels(query.device) if kernels is None else kernels:
        from conure.fused.clip_attention_kernel import launch

        return launch(*args)
    return attend_clip_reference(*args)


def attend_clip_reference(
    query: Tensor, key: Tensor, value: Tensor, positions: Tensor, bias_u: Tensor, bias_v: Tensor, counts: Tensor
) -> Tensor:
    """Reference implementation, with all scores in memory."""
    keep = torch.arange(query.shape[1], device=query.device) < counts[:, None]
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    return attend_relative(query, key, value, positions, bias_u, bias_v, keep[:, None, None])


def attend_relative(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: Tensor,
    bias_u: Tensor,
    bias_v: Tensor,
    keep: Tensor,
    dropout: float = 0.0,
    beside: ExtraKeys | None = None,
) -> Tensor:
    """query [B, h, Q, d], key and value [B, h, K, d], positions [h, Q + K - 1, d] for descending
    distances, keep broadcast to [B, h, Q, K] -> [B, Q, h * d]. A fully masked query gives finite, undefined output."""
    position_scores = (query + bias_v[:, None]) @ positions.transpose(-1, -2)
    bias = distance_to_key_scores(position_scores, key.shape[2]) * query.shape[3] ** -0.5
    bias = bias.masked_fill(~keep, torch.finfo(bias.dtype).min / 2)
    if beside is not None:
        bias = torch.cat([bias, beside.scores], 3)
        key = F.pad(key, (0, 0, 0, beside.values.shape[2]))  # zeros, as their scores are in the bias
        value = torch.cat([value, beside.values], 2)
    mixed = F.scaled_dot_product_attention(query + bias_u[:, None], key, value, attn_mask=bias, dropout_p=dropout)
    return mixed.transpose(1, 2).flatten(2)


def distance_to_key_scores(scores: Tensor, keys: int) -> Tensor:
    """Scores by distance [..., Q, Q + K - 1] (column 0 is the largest) -> scores by key [..., Q, K].

    Row i needs column j + Q - 1 - i for key j: a padding column and a reshape shift each row by one more.
    """
    *batch_shape, queries, distances = scores.shape
    padded = F.pad(scores, (1, 0)).reshape(*batch_shape, distances + 1, queries)
    return padded[..., 1:, :].reshape(*batch_shape, queries, distances)[..., :keys]
