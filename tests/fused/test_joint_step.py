"""The joint step kernel computes the same hidden values and durations as the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from conure.fused.joint_step import joint_step
from tests.fused.devices import DTYPES, assert_near, integers, noise


def inputs(window: int, width: int, durations: int, dtype: torch.dtype) -> dict[str, Any]:
    """Rows at the beginning, in the middle, near the end and beyond it."""
    torch.manual_seed(window)
    return {
        "steps": noise(4, 9, width, dtype=dtype),
        "time": integers(0, 4, 7, 12),
        "predicted": noise(4, width, dtype=dtype),
        "window": window,
        "weight": noise(durations, width, dtype=dtype) if durations else None,
        "bias": noise(durations, dtype=dtype) if durations else None,
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("window", "width", "durations"), [(1, 16, 0), (2, 100, 5), (4, 640, 5), (3, 20, 1)])
def test_kernel_matches_reference(window: int, width: int, durations: int, dtype: torch.dtype) -> None:
    args = inputs(window, width, durations, dtype)
    (hidden, duration), expected = (joint_step(**args, kernels=kernels) for kernels in (True, False))
    assert hidden.shape == (4, window, width)
    assert_near(hidden, expected[0])
    if durations:
        assert torch.equal(duration, expected[1])
    else:
        assert duration is expected[1] is None


@pytest.mark.parametrize("kernels", [False, True])
def test_window_begins_at_the_current_step(kernels: bool) -> None:
    args = inputs(2, 16, 0, torch.float32)
    hidden, _ = joint_step(**args, kernels=kernels)
    steps, predicted = args["steps"], args["predicted"]
    for row, places in enumerate(([0, 1], [4, 5], [7, 8], [8, 8])):
        assert_near(hidden[row], F.relu(steps[row, places] + predicted[row]))


@pytest.mark.parametrize("kernels", [False, True])
def test_first_of_equal_durations_wins(kernels: bool) -> None:
    args = inputs(2, 16, 5, torch.float32)
    args["weight"][:], args["bias"][:] = 0.5, -100.0
    args["bias"][2:4] = 1.0
    assert joint_step(**args, kernels=kernels)[1].eq(2).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # raised by NumPy in the interpreter
def test_nan_is_kept_and_the_duration_is_valid() -> None:
    args = inputs(2, 16, 5, torch.float32)
    args["predicted"][1] = torch.nan
    (hidden, duration), expected = (joint_step(**args, kernels=kernels) for kernels in (True, False))
    assert hidden[1].isnan().all()
    assert bool((duration < 5).all())
    assert torch.equal(duration[2:], expected[1][2:])


def test_device_selects_kernels_by_default() -> None:
    args = inputs(2, 640, 0, torch.float16)
    assert torch.equal(joint_step(**args)[0], joint_step(**args, kernels=True)[0])


def test_unsupported_memory_layout_is_rejected() -> None:
    args = inputs(2, 16, 5, torch.float32)
    args["steps"] = args["steps"].transpose(0, 1).contiguous().transpose(0, 1)
    with pytest.raises(ValueError, match="must be contiguous"):
        joint_step(**args)
