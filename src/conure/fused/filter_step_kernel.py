"""One program per row: a sliding window over time stays in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["filter_step_kernel", "launch", "meta"]


def launch(
    x: Tensor,
    cache: Tensor,
    slots: Tensor,
    write_slots: Tensor,
    age: Tensor,
    counts: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor,
    norm_bias: Tensor,
    epsilon: float,
) -> Tensor:
    """Like `filter_step.filter_step`. Raises ValueError for tensors that are not contiguous."""
    batch, chunk, _ = x.shape
    if not all(part.is_contiguous() for part in (x, cache, weight)):
        raise ValueError("x, cache and weight must be contiguous")
    out = torch.empty(batch, chunk, cache.shape[2], dtype=x.dtype, device=x.device)
    filter_step_kernel[(batch,)](
        *(x, cache, slots, write_slots, age, counts, weight, bias, norm_weight, norm_bias, out, epsilon),
        **meta(chunk, cache.shape[2], weight.shape[0]),
    )
    return out


def meta(chunk: int, width: int, taps: int) -> dict[str, int]:
    """Compile-time arguments."""
    return {
        "CHUNK": chunk,
        "WIDTH": width,
        "TAPS": taps,
        "COLUMNS": triton.next_power_of_2(width),
        "num_warps": 8,
    }


@triton.jit
def filter_step_kernel(
    x,
    cache,
    slots,
    write_slots,
    ages,
    counts,
    weight,
    bias,
    norm_weight,
    norm_bias,
    out,
    epsilon,
    CHUNK: tl.constexpr,
    WIDTH: tl.constexpr,
    TAPS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    slot, age, count = tl.load(slots + b), tl.load(ages + b), tl.load(counts + b)
    column = tl.arange(0, COLUMNS)
    inside = column < WIDTH
    cache += column
    target = cache + tl.load(write_slots + b) * ((TAPS - 1) * WIDTH)
    cache += slot * ((TAPS - 1) * WIDTH)
    x += b * (CHUNK * 2 * WIDTH) + column
    out += b * (CHUNK * WIDTH) + column
    start = tl.zeros((COLUMNS,), tl.float32)
    if bias is not None:
        start = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(norm_weight + column, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(norm_bias + column, mask=inside, other=0.0).to(tl.float32)
    taps = ()
    window = ()
    for tap in tl.static_range(TAPS):
        taps += (tl.load(weight + tap * WIDTH + column, mask=inside, other=0.0).to(tl.float32),)
    for tap in tl.static_range(TAPS - 1):
        window += (tl.load(cache + tap * WIDTH, mask=inside & (age > 0), other=0.0).to(tl.float32),)

    for step in tl.static_range(CHUNK):
        valid = inside & (step < count)
        gated = tl.load(x + 2 * step * WIDTH, mask=valid, other=0.0).to(tl.float32)
        gated *= tl.sigmoid(tl.load(x + (2 * step + 1) * WIDTH, mask=valid, other=0.0).to(tl.float32))
        # Rounded to the cache's type, so that results do not depend on where chunks end.
        window += (gated.to(cache.dtype.element_ty).to(tl.float32),)
        y = start
        for tap in tl.static_range(TAPS):
            y += taps[tap] * window[step + tap]
        centred = tl.where(inside, y - tl.sum(y, 0) / WIDTH, 0.0)
        y = centred * tl.rsqrt(tl.sum(centred * centred, 0) / WIDTH + epsilon) * scale + shift
        tl.store(out + step * WIDTH, y * tl.sigmoid(y), mask=inside)
    for tap in tl.static_range(TAPS - 1):
        tl.store(target + tap * WIDTH, window[CHUNK + tap], mask=inside & (count > 0))
