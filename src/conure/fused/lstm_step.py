"""An LSTM cell between its products and the next layer's, in place, for those rows alone that have a new token."""

from __future__ import annotations

from torch import Tensor

from conure.fused.available import has_fused_kernels

__all__ = ["lstm_step", "lstm_step_plainly"]


def lstm_step(
    fresh: Tensor,
    recurrent: Tensor,
    fresh_bias: Tensor,
    recurrent_bias: Tensor,
    moves: Tensor,
    hidden: Tensor,
    cell: Tensor,
    *,
    kernels: bool | None = None,
) -> None:
    """Writes `hidden` and `cell`, [B, P] each, of the rows that move, bool [B].

    fresh and recurrent [B, 4P] are products of the input and of `hidden`, without their biases [4P]: gates of input,
    forgetting, candidate and output, as torch has them.
    """
    given = (fresh, recurrent, fresh_bias, recurrent_bias, moves, hidden, cell)
    if has_fused_kernels(hidden.device) if kernels is None else kernels:
        from conure.fused.lstm_step_kernel import launch

        launch(*given)
    else:
        lstm_step_plainly(*given)


def lstm_step_plainly(
    fresh: Tensor,
    recurrent: Tensor,
    fresh_bias: Tensor,
    recurrent_bias: Tensor,
    moves: Tensor,
    hidden: Tensor,
    cell: Tensor,
) -> None:
    """The same, operation by operation."""
    admit, keep, candidate, show = (fresh + fresh_bias + recurrent + recurrent_bias).chunk(4, 1)
    memory = keep.sigmoid() * cell + admit.sigmoid() * candidate.tanh()
    hidden.copy_((show.sigmoid() * memory.tanh()).where(moves[:, None], hidden))
    cell.copy_(memory.where(moves[:, None], cell))
