"""Attention over a local window: each step sees a number of steps to either side; memory is linear in time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from conure.fused.clip_attention import ExtraKeys, attend_relative

__all__ = ["attend_locally"]


def attend_locally(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: Tensor,
    bias_u: Tensor,
    bias_v: Tensor,
    valid: Tensor,
    window: int,
    beside: ExtraKeys | None = None,
) -> Tensor:
    """Each step sees `window` steps to either side: query, key and value [B, h, T, d], valid [B, T] -> [B, T, h * d].

    Time is divided into blocks of `window` queries, each with the keys of its own and its two neighbour blocks, folded
    into the batch: memory is linear in T. Positions are of distances 2w - 1 .. 1 - 2w.
    """
    batch, _, steps, _ = query.shape
    blocks = -(-steps // window)
    query, key, value = (_blocks(part, blocks, window) for part in (query, key, value))
    fill = blocks * window - steps
    near = F.pad(valid, (window, window + fill)).unfold(1, 3 * window, window)  # [B, blocks, 3w]
    row = torch.arange(window, device=valid.device)[:, None]
    column = torch.arange(3 * window, device=valid.device)[None]
    band = (row + window - column).abs() <= window
    keep = (near[:, :, None, :] & band).flatten(0, 1)[:, None]
    key, value = (_neighbours(part, blocks) for part in (key, value))
    query = query.transpose(1, 2).flatten(0, 1)  # [B * blocks, h, w, d]
    if beside is not None:
        scores = _blocks(beside.scores, blocks, window).transpose(1, 2).flatten(0, 1)
        beside = ExtraKeys(scores, beside.values.repeat_interleave(blocks, 0))
    out = attend_relative(query, key, value, positions, bias_u, bias_v, keep, beside=beside)
    return out.view(batch, blocks * window, -1)[:, :steps]


def _blocks(x: Tensor, blocks: int, window: int) -> Tensor:
    """[B, h, T, d] -> [B, h, blocks, w, d], zero-padded."""
    x = F.pad(x, (0, 0, 0, blocks * window - x.shape[2]))
    return x.view(*x.shape[:2], blocks, window, x.shape[3])


def _neighbours(x: Tensor, blocks: int) -> Tensor:
    """[B, h, blocks, w, d] -> [B * blocks, h, 3w, d]: each block between its neighbours."""
    x = F.pad(x, (0, 0, 0, 0, 1, 1))
    x = torch.cat([x[:, :, :blocks], x[:, :, 1 : blocks + 1], x[:, :, 2:]], 3)
    return x.transpose(1, 2).flatten(0, 1)
