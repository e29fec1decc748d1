"""One program per block of ROWS by COLUMNS; rows that are not active are not read."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["launch", "lstm_step_kernel", "meta"]

ROWS, COLUMNS = 4, 128


def launch(
    inputs: Tensor,
    recurrent: Tensor,
    input_bias: Tensor,
    recurrent_bias: Tensor,
    active: Tensor,
    hidden: Tensor,
    cell: Tensor,
) -> None:
    """Like `lstm_step.lstm_step`. Raises ValueError for tensors that are not contiguous."""
    args = (inputs, recurrent, input_bias, recurrent_bias, active, hidden, cell)
    if not all(part.is_contiguous() for part in args):
        raise ValueError("gates, biases, active, hidden and cell must be contiguous")
    rows, width = hidden.shape
    constants = meta(rows, width)
    grid = triton.cdiv(rows, constants["ROWS"]), triton.cdiv(width, COLUMNS)
    lstm_step_kernel[grid](*args, rows, **constants)


def meta(rows: int, width: int) -> dict[str, int]:
    """Compile-time arguments."""
    block = min(ROWS, triton.next_power_of_2(rows))
    return {"WIDTH": width, "ROWS": block, "COLUMNS": COLUMNS, "num_warps": 2}


@triton.jit(do_not_specialize=["rows"])
def lstm_step_kernel(
    inputs,
    recurrent,
    input_bias,
    recurrent_bias,
    active,
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
    mask = tl.load(active + row, mask=row < rows, other=0).to(tl.int1) & inside
    inputs += row * (4 * WIDTH)
    recurrent += row * (4 * WIDTH)
    gates = ()
    for gate in tl.static_range(4):
        at = gate * WIDTH + column
        sums = tl.load(inputs + at, mask=mask, other=0.0).to(tl.float32)
        sums += tl.load(recurrent + at, mask=mask, other=0.0).to(tl.float32)
        sums += tl.load(input_bias + at, mask=inside, other=0.0).to(tl.float32)
        sums += tl.load(recurrent_bias + at, mask=inside, other=0.0).to(tl.float32)
        gates += (sums,)
    in_gate, forget_gate, candidate, out_gate = gates
    target = row * WIDTH + column
    memory = tl.sigmoid(forget_gate) * tl.load(cell + target, mask=mask, other=0.0).to(tl.float32)
    # tanh(x) = 2 sigmoid(2x) - 1
    memory += tl.sigmoid(in_gate) * (2 * tl.sigmoid(2 * candidate) - 1)
    tl.store(cell + target, memory, mask=mask)
    tl.store(hidden + target, tl.sigmoid(out_gate) * (2 * tl.sigmoid(2 * memory) - 1), mask=mask)
