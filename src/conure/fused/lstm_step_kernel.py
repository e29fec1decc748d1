"""One program some columns of a row; rows that do not move read nothing."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["launch", "lstm_step_kernel", "meta"]

COLUMNS = 256


def launch(
    fresh: Tensor,
    recurrent: Tensor,
    fresh_bias: Tensor,
    recurrent_bias: Tensor,
    moves: Tensor,
    hidden: Tensor,
    cell: Tensor,
) -> None:
    """As `lstm_step.lstm_step`. Raises ValueError for tensors that are not contiguous."""
    given = (fresh, recurrent, fresh_bias, recurrent_bias, moves, hidden, cell)
    if not all(part.is_contiguous() for part in given):
        raise ValueError("gates, biases, moves, hidden and cell must be contiguous")
    rows, width = hidden.shape
    lstm_step_kernel[(rows, triton.cdiv(width, COLUMNS))](*given, **meta(width))


def meta(width: int) -> dict[str, int]:
    """What the kernel is compiled for."""
    return {"WIDTH": width, "COLUMNS": COLUMNS, "num_warps": 2}


@triton.jit
def _gate(fresh, recurrent, fresh_bias, recurrent_bias, column, mask):
    sums = tl.load(fresh + column, mask=mask, other=0.0).to(tl.float32)
    sums += tl.load(recurrent + column, mask=mask, other=0.0).to(tl.float32)
    sums += tl.load(fresh_bias + column, mask=mask, other=0.0).to(tl.float32)
    return sums + tl.load(recurrent_bias + column, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def lstm_step_kernel(
    fresh,
    recurrent,
    fresh_bias,
    recurrent_bias,
    moves,
    hidden,
    cell,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = (column < WIDTH) & tl.load(moves + b)
    fresh += b * (4 * WIDTH)
    recurrent += b * (4 * WIDTH)
    admit = tl.sigmoid(_gate(fresh, recurrent, fresh_bias, recurrent_bias, column, mask))
    keep = tl.sigmoid(_gate(fresh, recurrent, fresh_bias, recurrent_bias, column + WIDTH, mask))
    candidate = _tanh(_gate(fresh, recurrent, fresh_bias, recurrent_bias, column + 2 * WIDTH, mask))
    show = tl.sigmoid(_gate(fresh, recurrent, fresh_bias, recurrent_bias, column + 3 * WIDTH, mask))
    place = b * WIDTH + column
    memory = keep * tl.load(cell + place, mask=mask, other=0.0).to(tl.float32) + admit * candidate
    tl.store(cell + place, memory, mask=mask)
    tl.store(hidden + place, show * _tanh(memory), mask=mask)
