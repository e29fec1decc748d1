"""A cell in place is torch's cell where rows move, and nothing where they do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conure.fused.lstm_step import lstm_step
from tests.fused.devices import DEVICE, DTYPES, assert_near, noise

ROWS = 6
MOVES = torch.tensor([True, False, True, True, False, True], device=DEVICE)


def inputs(width: int, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
    torch.manual_seed(width)
    gates = noise(2, ROWS, 4 * width, dtype=dtype).unbind()
    hidden, cell = noise(2, ROWS, width, dtype=dtype).unbind()
    return (*gates, *noise(2, 4 * width, dtype=dtype).unbind(), MOVES), (hidden, cell)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [16, 100, 640])
def test_the_kernel_gives_what_its_twin_gives(width: int, dtype: torch.dtype) -> None:
    given, state = inputs(width, dtype)
    runs = [tuple(part.clone() for part in state) for _ in range(2)]
    for kernels, own in zip((True, False), runs, strict=True):
        lstm_step(*given, *own, kernels=kernels)
    for got, expected, before in zip(*runs, state, strict=True):
        assert_near(got, expected)
        assert torch.equal(got[~MOVES], before[~MOVES])
        assert not torch.equal(got[MOVES], before[MOVES])


@pytest.mark.parametrize("kernels", [False, True])
def test_it_is_torchs_cell(kernels: bool) -> None:
    torch.manual_seed(1)
    x, hidden, cell = noise(3, ROWS, 24).unbind()
    fresh, recurrent, biases = noise(96, 24), noise(96, 24), noise(2, 96)
    expected = torch.lstm_cell(x, (hidden, cell), fresh, recurrent, *biases)
    lstm_step(x @ fresh.T, hidden @ recurrent.T, *biases, torch.ones_like(MOVES), hidden, cell, kernels=kernels)
    for got, wanted in zip((hidden, cell), expected, strict=True):
        assert_near(got, wanted)


def test_by_default_the_device_says_whether_kernels_run() -> None:
    given, state = inputs(300, torch.float16)
    runs = [tuple(part.clone() for part in state) for _ in range(2)]
    lstm_step(*given, *runs[0])
    lstm_step(*given, *runs[1], kernels=True)
    assert torch.equal(runs[0][1], runs[1][1])


def test_what_does_not_lie_as_the_kernel_reads_it_is_refused() -> None:
    given, (hidden, cell) = inputs(16, torch.float32)
    with pytest.raises(ValueError, match="must be contiguous"):
        lstm_step(*given, hidden, cell.T.contiguous().T)
