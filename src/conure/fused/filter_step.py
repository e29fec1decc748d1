"""The middle of the convolution module for one chunk of streams, between the two pointwise convolutions.

GLU, depthwise convolution over time, layer norm, SiLU: the same as `models/convolution.py`, but the cached steps before
the chunk are read and written in the slots' cache, with time as the outer axis.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conure.fused.available import has_fused_kernels

__all__ = ["filter_step", "filter_step_reference"]


def filter_step(
    x: Tensor,
    cache: Tensor,
    slots: Tensor,
    write_slots: Tensor,
    age: Tensor,
    counts: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: nn.LayerNorm | None,
    *,
    kernels: bool | None = None,
) -> Tensor:
    """One chunk x [B, C, 2D], values then gates -> [B, C, D]; writes its last k - 1 gated steps to the cache.

    `cache` [slots, k - 1, D] is read at `slots` [B] and written at `write_slots` [B]: the same slots, or the scratch
    slot for rows that are flushed, which several rows may share. The cache of a row with `age` [B] 0 counts as zeros,
    and so do steps from counts[b] on. Rows with count 0 write nothing and may share a slot. weight [k, D] and bias [D]
    belong to the convolution. Without a norm the reference implementation runs.
    """
    args = (x, cache, slots, write_slots, age, counts, weight, bias)
    if norm is not None and (has_fused_kernels(x.device) if kernels is None else kernels):
        from conure.fused.filter_step_kernel import launch

        return launch(*args, norm.weight, norm.bias, norm.eps)
    return filter_step_reference(*args, norm)


def filter_step_reference(
    x: Tensor,
    cache: Tensor,
    slots: Tensor,
    write_slots: Tensor,
    age: Tensor,
    counts: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: nn.LayerNorm | None,
) -> Tensor:
    """Reference implementation, on a copy of the cache."""
    chunk, width = x.shape[1], cache.shape[2]
    past = cache[slots]
    valid = torch.arange(chunk, device=x.device) < counts[:, None]
    gated = F.glu(x, -1).masked_fill(~valid[..., None], 0.0)
    steps = torch.cat([past.masked_fill((age == 0)[:, None, None], 0.0), gated], 1)
    filtered = F.conv1d(steps.transpose(1, 2), weight.T[:, None], bias, groups=width).transpose(1, 2)
    cache[write_slots] = torch.where((counts > 0)[:, None, None], steps[:, chunk:], cache[write_slots])
    return F.silu(filtered if norm is None else norm(filtered))
