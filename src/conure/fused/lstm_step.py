"""The element-wise part of an LSTM cell, in place, for the rows that have a new token."""

from __future__ import annotations

from torch import Tensor

from conure.fused.available import has_fused_kernels

__all__ = ["lstm_step", "lstm_step_reference"]


def lstm_step(
    inputs: Tensor,
    recurrent: Tensor,
    input_bias: Tensor,
    recurrent_bias: Tensor,
    active: Tensor,
    hidden: Tensor,
    cell: Tensor,
    *,
    kernels: bool | None = None,
) -> None:
    """Updates `hidden` and `cell`, [B, P] each, of the `active` rows, bool [B].

    inputs and recurrent [B, 4P] are the products with the input and with `hidden`, without their biases [4P]. The gates
    are in torch's order: input, forget, candidate, output.
    """
    args = (inputs, recurrent, input_bias, recurrent_bias, active, hidden, cell)
    if has_fused_kernels(hidden.device) if kernels is None else kernels:
        from conure.fused.lstm_step_kernel import launch

        launch(*args)
    else:
        lstm_step_reference(*args)


def lstm_step_reference(
    inputs: Tensor,
    recurrent: Tensor,
    input_bias: Tensor,
    recurrent_bias: Tensor,
    active: Tensor,
    hidden: Tensor,
    cell: Tensor,
) -> None:
    """Reference implementation."""
    in_gate, forget_gate, candidate, out_gate = (inputs + input_bias + recurrent + recurrent_bias).chunk(4, 1)
    memory = forget_gate.sigmoid() * cell + in_gate.sigmoid() * candidate.tanh()
    hidden.copy_((out_gate.sigmoid() * memory.tanh()).where(active[:, None], hidden))
    cell.copy_(memory.where(active[:, None], cell))
