"""The middle of the convolution module for one chunk of live streams, between its two products.

Gate, filter over time, normalise, SiLU: as `models/convolution.py` has it, but the gated steps before the chunk are
read and written where the slots keep them, and lie step by step, as the chunk does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conure.fused.available import has_fused_kernels

__all__ = ["filter_step", "filter_step_plainly"]


def filter_step(
    x: Tensor,
    cache: Tensor,
    rows: Tensor,
    into: Tensor,
    age: Tensor,
    counts: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: nn.LayerNorm | None,
    *,
    kernels: bool | None = None,
) -> Tensor:
    """One chunk x [B, C, 2D], values then gates -> [B, C, D]; its last k - 1 gated steps go into the cache.

    `cache` [slots, k - 1, D] is read at the slots `rows` [B] and written at `into` [B]: the same ones, or one that
    nobody reads, which rows may share, where the chunk is only tried. A row whose `age` [B] is 0 has nothing there yet.
    Steps from counts[b] on are as if they were zero. A row that brings none writes nothing; such rows may share a slot,
    too. weight [k, D] and bias [D] are the filter's; without a norm there is no kernel.
    """
    given = (x, cache, rows, into, age, counts, weight, bias)
    if norm is not None and (has_fused_kernels(x.device) if kernels is None else kernels):
        from conure.fused.filter_step_kernel import launch

        return launch(*given, norm.weight, norm.bias, norm.eps)
    return filter_step_plainly(*given, norm)


def filter_step_plainly(
    x: Tensor,
    cache: Tensor,
    rows: Tensor,
    into: Tensor,
    age: Tensor,
    counts: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: nn.LayerNorm | None,
) -> Tensor:
    """The same from a copy of the cache."""
    chunk, width = x.shape[1], cache.shape[2]
    before = cache[rows]
    there = torch.arange(chunk, device=x.device) < counts[:, None]
    gated = F.glu(x, -1).masked_fill(~there[..., None], 0.0)
    seen = torch.cat([before.masked_fill((age == 0)[:, None, None], 0.0), gated], 1)
    filtered = F.conv1d(seen.transpose(1, 2), weight.T[:, None], bias, groups=width).transpose(1, 2)
    cache[into] = torch.where((counts > 0)[:, None, None], seen[:, chunk:], cache[into])
    return F.silu(filtered if norm is None else norm(filtered))
