"""What the last product of a joint reads, for some steps of each row from where it is, and how long TDT's tokens last.

Durations are few: their product is made where the row is, while it is there.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from conure.fused.available import has_fused_kernels

__all__ = ["joint_step", "joint_step_plainly", "gather_steps"]


def joint_step(
    steps: Tensor,
    time: Tensor,
    predicted: Tensor,
    window: int,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    kernels: bool | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Projected steps [B, S, J], where rows are in them [B], predictions [B, J] -> relu of their sums [B, W, J] and
    the best duration, int64 [B, W], by weight [D, J] and bias [D]; None without.

    Steps beyond the last are as the last. Of equal durations the first is taken; scores are in float32.
    """
    given = (steps, time, predicted, window, weight, bias)
    if has_fused_kernels(steps.device) if kernels is None else kernels:
        from conure.fused.joint_step_kernel import launch

        return launch(*given)
    return joint_step_plainly(*given)


def joint_step_plainly(
    steps: Tensor, time: Tensor, predicted: Tensor, window: int, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The same, operation by operation."""
    hidden = F.relu(gather_steps(steps, time, window) + predicted[:, None])
    if weight is None or bias is None:
        return hidden, None
    return hidden, F.linear(hidden.float(), weight.float(), bias.float()).argmax(-1)


def gather_steps(steps: Tensor, time: Tensor, window: int) -> Tensor:
    """Steps [B, S, J] from `time` [B] on, [B, W, J]; those beyond the last are as the last."""
    index = (time[:, None] + _places(window, steps.device)).clamp(max=steps.shape[1] - 1)
    return steps.gather(1, index[..., None].expand(-1, -1, steps.shape[2]))


@cache
def _places(count: int, device: torch.device) -> Tensor:
    """Kept for ever: what was recorded reads it where it is."""
    return torch.arange(count, device=device)
