"""Local attention with global steps at the beginning of a clip, which see all of it and are seen by all of it.

A step sees its window as with local attention and, in addition, every global step: with the product of query and key
alone, without distances and without the learned biases. So a global step within the window is seen twice. Global steps
see the whole clip, again with the product alone. Source: Beltagy et al., "Longformer" (2020), as NeMo's
RelPositionMultiHeadAttentionLongformer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from conure.fused.clip_attention import ExtraKeys
from conure.models.local_attention import attend_locally

__all__ = ["Projection", "attend_with_global_steps"]


class Projection(NamedTuple):
    """Queries, keys and values by head, each [B, h, T, d]."""

    query: Tensor
    key: Tensor
    value: Tensor


def attend_with_global_steps(
    local: Projection,
    global_projection: Projection,
    positions: Tensor,
    bias_u: Tensor,
    bias_v: Tensor,
    valid: Tensor,
    window: int,
    places: range,
) -> Tensor:
    """Like `attend_locally`; the steps at `places` are global and use `global_projection`.

    The values that other steps read from global ones are always those of `local`.
    """
    steps = torch.arange(places.start, places.stop, places.step, device=valid.device)
    is_valid = valid[:, steps]  # [B, G]
    query, key, value = global_projection
    scores = query @ key[:, :, steps].transpose(2, 3) * query.shape[3] ** -0.5
    scores = scores.masked_fill(~is_valid[:, None, None], torch.finfo(scores.dtype).min / 2)
    beside = ExtraKeys(scores, local.value[:, :, steps])
    mixed = attend_locally(*local, positions, bias_u, bias_v, valid, window, beside)
    global_queries = _global_queries(query[:, :, steps], is_valid.sum(1))
    seen = F.scaled_dot_product_attention(global_queries, key, value, attn_mask=_finite_mask(valid, scores.dtype))
    seen = torch.where(is_valid[..., None], seen.transpose(1, 2).flatten(2), mixed[:, steps])
    return mixed.index_copy(1, steps, seen)


def _global_queries(queries: Tensor, counts: Tensor) -> Tensor:
    """The queries that global steps use, [B, h, G, d], of which counts [B] are valid.

    NeMo reads [G, h, d] as [h, G, d] without a transpose. Networks were trained with this, so several global steps use
    one another's queries; a single one uses its own.
    """
    _, heads, tokens, width = queries.shape
    head = torch.arange(heads, device=queries.device)[:, None]
    flat = head * counts[:, None, None] + torch.arange(tokens, device=queries.device)  # [B, h, G]
    source = (flat % heads) * tokens + (flat // heads).clamp(max=tokens - 1)
    index = source.flatten(1)[..., None].expand(-1, -1, width)
    return queries.flatten(1, 2).gather(1, index).view_as(queries)


def _finite_mask(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """An additive mask, [B, 1, 1, T], with finite values: the results for a clip without steps stay finite."""
    mask = torch.zeros(valid.shape, dtype=dtype, device=valid.device)
    return mask.masked_fill(~valid, torch.finfo(dtype).min / 2)[:, None, None]
