"""One program per step of a row; the step stays in registers for the product with the durations' weights."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["joint_step_kernel", "launch", "meta"]


def launch(
    steps: Tensor, time: Tensor, predicted: Tensor, window: int, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Like `joint_step.joint_step`. Raises ValueError for tensors that are not contiguous."""
    if not all(part is None or part.is_contiguous() for part in (steps, time, predicted, weight, bias)):
        raise ValueError("steps, time, predicted, weight and bias must be contiguous")
    rows, length, width = steps.shape
    hidden = torch.empty(rows, window, width, dtype=steps.dtype, device=steps.device)
    duration = None if weight is None else torch.empty(rows, window, dtype=torch.int64, device=steps.device)
    joint_step_kernel[(rows, window)](
        *(steps, time, predicted, weight, bias, hidden, duration, length),
        **meta(width, 0 if weight is None else len(weight)),
    )
    return hidden, duration


def meta(width: int, durations: int) -> dict[str, int]:
    """Compile-time arguments."""
    return {
        "WIDTH": width,
        "DURATIONS": durations,
        "COLUMNS": triton.next_power_of_2(width),
        "SCORES": triton.next_power_of_2(max(1, durations)),
        "num_warps": 4,
    }


@triton.jit(do_not_specialize=["length"])
def joint_step_kernel(
    steps,
    times,
    predicted,
    weight,
    bias,
    hidden,
    duration,
    length,
    WIDTH: tl.constexpr,
    DURATIONS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SCORES: tl.constexpr,
):
    b, step = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = tl.arange(0, COLUMNS)
    inside = column < WIDTH
    source = b * length + tl.minimum(tl.load(times + b) + step, length - 1)
    target = b * tl.num_programs(1) + step
    mixed = tl.load(steps + source * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    mixed += tl.load(predicted + b * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    # Rounded to the stored type, so that both products read the same values. NaN is kept.
    mixed = tl.maximum(mixed, 0.0, propagate_nan=tl.PropagateNan.ALL).to(hidden.dtype.element_ty)
    tl.store(hidden + target * WIDTH + column, mixed, mask=inside)
    if DURATIONS:
        score = tl.arange(0, SCORES)
        valid = score < DURATIONS
        weights = weight + score[:, None] * WIDTH + column[None, :]
        weights = tl.load(weights, mask=valid[:, None] & inside[None, :], other=0.0).to(tl.float32)
        scores = tl.sum(weights * mixed.to(tl.float32)[None, :], 1)
        scores += tl.load(bias + score, mask=valid, other=0.0).to(tl.float32)
        best = tl.argmax(tl.where(valid, scores, float("-inf")), 0)
        # NaN scores have no maximum: clamp to a valid index.
        tl.store(duration + target, tl.minimum(best, DURATIONS - 1).to(tl.int64))
