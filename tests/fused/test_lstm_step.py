"""The in-place LSTM step equals torch's cell on active rows and leaves the others unchanged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conure.fused.lstm_step import lstm_step
from tests.fused.devices import DEVICE, DTYPES, assert_near, noise

ROWS = 6
ACTIVE = torch.tensor([True, False, True, True, False, True], device=DEVICE)


def inputs(width: int, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
    torch.manual_seed(width)
    gates = noise(2, ROWS, 4 * width, dtype=dtype).unbind()
    hidden, cell = noise(2, ROWS, width, dtype=dtype).unbind()
    return (*gates, *noise(2, 4 * width, dtype=dtype).unbind(), ACTIVE), (hidden, cell)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [16, 100, 640])
def test_kernel_matches_reference(width: int, dtype: torch.dtype) -> None:
    args, state = inputs(width, dtype)
    runs = [tuple(part.clone() for part in state) for _ in range(2)]
    for kernels, copies in zip((True, False), runs, strict=True):
        lstm_step(*args, *copies, kernels=kernels)
    for got, expected, before in zip(*runs, state, strict=True):
        assert_near(got, expected)
        assert torch.equal(got[~ACTIVE], before[~ACTIVE])
        assert not torch.equal(got[ACTIVE], before[ACTIVE])


@pytest.mark.parametrize("kernels", [False, True])
def test_it_equals_torch_lstm_cell(kernels: bool) -> None:
    torch.manual_seed(1)
    x, hidden, cell = noise(3, ROWS, 24).unbind()
    input_weight, recurrent_weight, biases = noise(96, 24), noise(96, 24), noise(2, 96)
    expected = torch.lstm_cell(x, (hidden, cell), input_weight, recurrent_weight, *biases)
    lstm_step(
        x @ input_weight.T, hidden @ recurrent_weight.T, *biases, torch.ones_like(ACTIVE), hidden, cell, kernels=kernels
    )
    for got, want in zip((hidden, cell), expected, strict=True):
        assert_near(got, want)


def test_device_selects_kernels_by_default() -> None:
    args, state = inputs(300, torch.float16)
    runs = [tuple(part.clone() for part in state) for _ in range(2)]
    lstm_step(*args, *runs[0])
    lstm_step(*args, *runs[1], kernels=True)
    assert torch.equal(runs[0][1], runs[1][1])


def test_unsupported_memory_layout_is_rejected() -> None:
    args, (hidden, cell) = inputs(16, torch.float32)
    with pytest.raises(ValueError, match="must be contiguous"):
        lstm_step(*args, hidden, cell.T.contiguous().T)
