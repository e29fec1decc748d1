"""Local attention in which some steps at the beginning of a clip see all of it and are seen by all of it.

A step sees its window as with local attention, and beside it every global step once more: by the product of query
and key alone, without distances and without the learned biases. So a global step within the window is seen twice.
Global steps themselves see the whole clip, again by the product alone. Source: Beltagy et al., "Longformer" (2020),
as NeMo's RelPositionMultiHeadAttentionLongformer.
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
    own: Projection,
    positions: Tensor,
    bias_u: Tensor,
    bias_v: Tensor,
    valid: Tensor,
    window: int,
    places: range,
) -> Tensor:
    """As `attend_locally`; the steps at `places` are global, and `own` is the projection for what they see and give.

    Values that they give to others are those of `local`, also where they have a projection of their own.
    """
    steps = torch.arange(places.start, places.stop, places.step, device=valid.device)
    real = valid[:, steps]  # [B, G]
    scores = own.query @ own.key[:, :, steps].transpose(2, 3) * own.query.shape[3] ** -0.5
    scores = scores.masked_fill(~real[:, None, None], torch.finfo(scores.dtype).min / 2)
    beside = ExtraKeys(scores, local.value[:, :, steps])
    mixed = attend_locally(*local, positions, bias_u, bias_v, valid, window, beside)
    asking = _asking(own.query[:, :, steps], real.sum(1))
    seen = F.scaled_dot_product_attention(asking, own.key, own.value, attn_mask=_finite(valid, scores.dtype))
    seen = torch.where(real[..., None], seen.transpose(1, 2).flatten(2), mixed[:, steps])
    return mixed.index_copy(1, steps, seen)


def _asking(queries: Tensor, counts: Tensor) -> Tensor:
    """The queries that global steps ask with, [B, h, G, d], of which counts [B] are real.

    NeMo reads [G, h, d] as [h, G, d] without a transpose. Networks were trained with it, so several global steps ask
    with one another's queries; of one there is nothing to confuse.
    """
    _, heads, tokens, width = queries.shape
    head = torch.arange(heads, device=queries.device)[:, None]
    flat = head * counts[:, None, None] + torch.arange(tokens, device=queries.device)  # [B, h, G]
    source = (flat % heads) * tokens + (flat // heads).clamp(max=tokens - 1)
    index = source.flatten(1)[..., None].expand(-1, -1, width)
    return queries.flatten(1, 2).gather(1, index).view_as(queries)


def _finite(valid: Tensor, kind: torch.dtype) -> Tensor:
    """A mask that is added, [B, 1, 1, T]: a clip without steps stays finite."""
    mask = torch.zeros(valid.shape, dtype=kind, device=valid.device)
    return mask.masked_fill(~valid, torch.finfo(kind).min / 2)[:, None, None]
