"""The input of the joint's output layer for a window of steps of each row, and the best TDT durations.

There are few durations, so their product is computed here, while the row is in registers.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from conure.fused.available import has_fused_kernels

__all__ = ["joint_step", "joint_step_reference", "gather_steps"]


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
    """Projected steps [B, S, J], current step `time` [B], predictions [B, J] -> relu of the sums [B, W, J] and the best
    duration, int64 [B, W], by weight [D, J] and bias [D]; None without a weight.

    Windows beyond the end repeat the last step. Of equal durations the first one wins; scores are in float32.
    """
    args = (steps, time, predicted, window, weight, bias)
    if has_fused_kernels(steps.device) if kernels is None else kernels:
        from conure.fused.joint_step_kernel import launch

        return launch(*args)
    return joint_step_reference(*args)


def joint_step_reference(
    steps: Tensor, time: Tensor, predicted: Tensor, window: int, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Reference implementation."""
    hidden = F.relu(gather_steps(steps, time, window) + predicted[:, None])
    if weight is None or bias is None:
        return hidden, None
    return hidden, F.linear(hidden.float(), weight.float(), bias.float()).argmax(-1)


def gather_steps(steps: Tensor, time: Tensor, window: int) -> Tensor:
    """Steps [B, S, J] from `time` [B] on, [B, W, J]; beyond the end the last step repeats."""
    index = (time[:, None] + _window_offsets(window, steps.device)).clamp(max=steps.shape[1] - 1)
    return steps.gather(1, index[..., None].expand(-1, -1, steps.shape[2]))


@cache
def _window_offsets(count: int, device: torch.device) -> Tensor:
    """Cached for ever: captured CUDA graphs read it at its address."""
    return torch.arange(count, device=device)
