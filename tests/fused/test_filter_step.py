"""The middle of the convolution module gives, in place, what the module gives with its cache handed round."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conure.fused.filter_step import filter_step
from conure.models.convolution import Convolution
from tests.fused.devices import DEVICE, DTYPES, assert_near, noise, whole
from tests.models.networks import STREAMING, network

STREAMS, SCRATCH = 4, 4


def filter_of(convolution: Convolution) -> dict[str, Any]:
    depthwise = convolution.depthwise_conv
    weight = depthwise.weight[:, 0].T.contiguous()
    return {"weight": weight, "bias": depthwise.bias, "norm": convolution.batch_norm}


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize(("chunk", "bias"), [(1, False), (2, True), (11, False)])
@torch.inference_mode()
def test_it_is_the_middle_of_the_module(chunk: int, bias: bool, kernels: bool) -> None:
    """Streams begin, pause, end within a chunk and begin anew in the same slot."""
    convolution = network(replace(STREAMING, bias=bias)).encoder.layers[0].conv.to(DEVICE)
    taps = STREAMING.kernel
    rng = random.Random(chunk)
    moved = torch.zeros(STREAMS, STREAMING.width, taps - 1, device=DEVICE)
    cache = torch.full((STREAMS + 1, taps - 1, STREAMING.width), torch.nan, device=DEVICE)
    age = torch.zeros(STREAMS + 1, dtype=torch.long, device=DEVICE)
    for _ in range(4):
        ready = rng.sample(range(STREAMS), 2)
        counts = whole(*(chunk if rng.random() < 0.6 else rng.randint(1, chunk) for _ in ready), 0, 0)
        rows = whole(*ready, SCRATCH, SCRATCH)
        x = noise(4, chunk, STREAMING.width)
        there = torch.arange(chunk, device=DEVICE) < counts[:2, None]
        before = moved[rows[:2]] * (age[rows[:2]] > 0)[:, None, None]
        expected, moved[rows[:2]] = convolution.step(x[:2], there, before)
        mixed = convolution.pointwise_conv1(x)
        middle = filter_step(mixed, cache, rows, rows, age[rows], counts, **filter_of(convolution), kernels=kernels)
        assert_near(convolution.pointwise_conv2(middle)[:2], expected)
        assert_near(cache[rows[:2]], moved[rows[:2]].transpose(1, 2))
        assert cache[SCRATCH].isnan().all()
        age[rows] += counts
        age[rows[:2][counts[:2] < chunk]] = 0


def inputs(chunk: int, width: int, dtype: torch.dtype) -> dict[str, Any]:
    torch.manual_seed(chunk)
    return {
        "x": noise(4, chunk, 2 * width, dtype=dtype),
        "cache": noise(6, 8, width, dtype=dtype),
        "rows": whole(3, 1, 5, 5),
        "into": whole(3, 1, 5, 5),
        "age": whole(0, 7, 10**12, 0),
        "counts": whole(chunk, max(1, chunk - 1), 0, 0),
        "weight": noise(9, width, dtype=dtype),
        "bias": noise(width, dtype=dtype),
        "norm": norm_of(width, dtype),
    }


def norm_of(width: int, dtype: torch.dtype) -> nn.LayerNorm:
    norm = nn.LayerNorm(width, device=DEVICE, dtype=dtype)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    return norm.requires_grad_(False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("chunk", "width"), [(1, 16), (4, 100), (14, 64)])
def test_the_kernel_gives_what_its_twin_gives(chunk: int, width: int, dtype: torch.dtype) -> None:
    given = inputs(chunk, width, dtype)
    cache = given["cache"].clone()
    expected = filter_step(**{**given, "cache": cache}, kernels=False)
    assert_near(filter_step(**given), expected)
    assert_near(given["cache"], cache)


def test_where_chunks_end_does_not_matter() -> None:
    given = inputs(4, 32, torch.float16)
    given["counts"], given["rows"] = torch.full_like(given["counts"], 4), whole(0, 1, 2, 3)
    given["into"] = given["rows"]
    again = {**given, "cache": given["cache"].clone(), "counts": torch.full_like(given["counts"], 1)}
    parts = [
        filter_step(**{**again, "x": given["x"][:, step : step + 1].contiguous(), "age": given["age"] + step})
        for step in range(4)
    ]
    assert torch.equal(filter_step(**given), torch.cat(parts, 1))
    assert torch.equal(given["cache"], again["cache"])


@pytest.mark.parametrize("kernels", [False, True])
def test_a_chunk_that_is_tried_leaves_what_it_reads_as_it_was(kernels: bool) -> None:
    given = inputs(4, 32, torch.float32)
    cache = given["cache"].clone()
    expected = filter_step(**{**given, "cache": cache}, kernels=kernels)
    given["into"] = whole(0, 0, 5, 5)
    before = given["cache"].clone()
    assert torch.equal(filter_step(**given, kernels=kernels), expected)
    assert torch.equal(given["cache"][1:], before[1:])
    assert not torch.equal(given["cache"][0], before[0])


def test_by_default_the_device_says_whether_kernels_run() -> None:
    given = inputs(2, 16, torch.float16)
    runs = [filter_step(**{**given, "cache": given["cache"].clone()}, **which) for which in ({}, {"kernels": True})]
    assert torch.equal(*runs)


def test_what_does_not_lie_as_the_kernel_reads_it_is_refused() -> None:
    given = inputs(2, 16, torch.float32)
    given["weight"] = given["weight"].T.contiguous().T
    with pytest.raises(ValueError, match="must be contiguous"):
        filter_step(**given)
    given["x"] = F.pad(given["x"], (0, 1))[..., :-1]
    with pytest.raises(ValueError, match="must be contiguous"):
        filter_step(**given)
