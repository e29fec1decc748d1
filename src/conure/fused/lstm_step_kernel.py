"""One program some columns of a few rows; of rows that do not move it reads nothing."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["launch", "lstm_step_kernel", "meta"]

ROWS, COLUMNS = 4, 128


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
    made_for = meta(rows, width)
    grid = triton.cdiv(rows, made_for["ROWS"]), triton.cdiv(width, COLUMNS)
    lstm_step_kernel[grid](*given, rows, **made_for)


def meta(rows: int, width: int) -> dict[str, int]:
    """What the kernel is compiled for."""
    block = min(ROWS, triton.next_power_of_2(rows))
    return {"WIDTH": width, "ROWS": block, "COLUMNS": COLUMNS, "num_warps": 2}


@triton.jit(do_not_specialize=["rows"])
def lstm_step_kernel(
    fresh,
    recurrent,
    fresh_bias,
    recurrent_bias,
    moves,
    hidden,
    cell,
    rows,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = column < WIDTH
    mask = tl.load(moves + row, mask=row < rows, other=0).to(tl.int1) & inside
    fresh += row * (4 * WIDTH)
    recurrent += row * (4 * WIDTH)
    gates = ()
    for gate in tl.static_range(4):
        at = gate * WIDTH + column
        sums = tl.load(fresh + at, mask=mask, other=0.0).to(tl.float32)
        sums += tl.load(recurrent + at, mask=mask, other=0.0).to(tl.float32)
        sums += tl.load(fresh_bias + at, mask=inside, other=0.0).to(tl.float32)
        sums += tl.load(recurrent_bias + at, mask=inside, other=0.0).to(tl.float32)
        gates += (sums,)
    admit, keep, candidate, show = gates
    place = row * WIDTH + column
    memory = tl.sigmoid(keep) * tl.load(cell + place, mask=mask, other=0.0).to(tl.float32)
    # tanh(x) = 2 sigmoid(2x) - 1
    memory += tl.sigmoid(admit) * (2 * tl.sigmoid(2 * candidate) - 1)
    tl.store(cell + place, memory, mask=mask)
    tl.store(hidden + place, tl.sigmoid(show) * (2 * tl.sigmoid(2 * memory) - 1), mask=mask)
