"""What the joint's last product reads comes out the same from one kernel, and so does the best duration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from conure.fused.joint_step import joint_step
from tests.fused.devices import DTYPES, assert_near, noise, whole


def inputs(window: int, width: int, durations: int, dtype: torch.dtype) -> dict[str, Any]:
    """Rows at the begin, within, near the end and past it."""
    torch.manual_seed(window)
    return {
        "steps": noise(4, 9, width, dtype=dtype),
        "time": whole(0, 4, 7, 12),
        "predicted": noise(4, width, dtype=dtype),
        "window": window,
        "weight": noise(durations, width, dtype=dtype) if durations else None,
        "bias": noise(durations, dtype=dtype) if durations else None,
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("window", "width", "durations"), [(1, 16, 0), (2, 100, 5), (4, 640, 5), (3, 20, 1)])
def test_the_kernel_gives_what_its_twin_gives(window: int, width: int, durations: int, dtype: torch.dtype) -> None:
    given = inputs(window, width, durations, dtype)
    (hidden, duration), expected = (joint_step(**given, kernels=kernels) for kernels in (True, False))
    assert hidden.shape == (4, window, width)
    assert_near(hidden, expected[0])
    if durations:
        assert torch.equal(duration, expected[1])
    else:
        assert duration is expected[1] is None


@pytest.mark.parametrize("kernels", [False, True])
def test_steps_are_those_from_where_the_row_is(kernels: bool) -> None:
    given = inputs(2, 16, 0, torch.float32)
    hidden, _ = joint_step(**given, kernels=kernels)
    steps, predicted = given["steps"], given["predicted"]
    for row, places in enumerate(([0, 1], [4, 5], [7, 8], [8, 8])):
        assert_near(hidden[row], F.relu(steps[row, places] + predicted[row]))


@pytest.mark.parametrize("kernels", [False, True])
def test_of_equal_durations_the_first_is_taken(kernels: bool) -> None:
    given = inputs(2, 16, 5, torch.float32)
    given["weight"][:], given["bias"][:] = 0.5, -100.0
    given["bias"][2:4] = 1.0
    assert joint_step(**given, kernels=kernels)[1].eq(2).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, which interprets
def test_what_is_no_number_stays_so_and_gets_a_duration_that_exists() -> None:
    given = inputs(2, 16, 5, torch.float32)
    given["predicted"][1] = torch.nan
    (hidden, duration), expected = (joint_step(**given, kernels=kernels) for kernels in (True, False))
    assert hidden[1].isnan().all()
    assert bool((duration < 5).all())
    assert torch.equal(duration[2:], expected[1][2:])


def test_by_default_the_device_says_whether_kernels_run() -> None:
    given = inputs(2, 640, 0, torch.float16)
    assert torch.equal(joint_step(**given)[0], joint_step(**given, kernels=True)[0])


def test_what_does_not_lie_as_the_kernel_reads_it_is_refused() -> None:
    given = inputs(2, 16, 5, torch.float32)
    given["steps"] = given["steps"].transpose(0, 1).contiguous().transpose(0, 1)
    with pytest.raises(ValueError, match="must be contiguous"):
        joint_step(**given)
