"""The in-place filter step equals the middle of the convolution module with an explicit cache."""

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
from tests.fused.devices import DEVICE, DTYPES, assert_near, integers, noise
from tests.models.networks import STREAMING, network

STREAMS, SCRATCH = 4, 4


def filter_of(convolution: Convolution) -> dict[str, Any]:
    depthwise = convolution.depthwise_conv
    weight = depthwise.weight[:, 0].T.contiguous()
    return {"weight": weight, "bias": depthwise.bias, "norm": convolution.batch_norm}


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize(("chunk", "bias"), [(1, False), (2, True), (11, False)])
@torch.inference_mode()
def test_it_equals_the_module(chunk: int, bias: bool, kernels: bool) -> None:
    """Streams begin, pause, end within a chunk and restart in the same slot."""
    convolution = network(replace(STREAMING, bias=bias)).encoder.layers[0].conv.to(DEVICE)
    taps = STREAMING.kernel
    rng = random.Random(chunk)
    moved = torch.zeros(STREAMS, STREAMING.width, taps - 1, device=DEVICE)
    cache = torch.full((STREAMS + 1, taps - 1, STREAMING.width), torch.nan, device=DEVICE)
    age = torch.zeros(STREAMS + 1, dtype=torch.long, device=DEVICE)
    for _ in range(4):
        ready = rng.sample(range(STREAMS), 2)
        counts = integers(*(chunk if rng.random() < 0.6 else rng.randint(1, chunk) for _ in ready), 0, 0)
        rows = integers(*ready, SCRATCH, SCRATCH)
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
        "slots": integers(3, 1, 5, 5),
        "write_slots": integers(3, 1, 5, 5),
        "age": integers(0, 7, 10**12, 0),
        "counts": integers(chunk, max(1, chunk - 1), 0, 0),
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
def test_kernel_matches_reference(chunk: int, width: int, dtype: torch.dtype) -> None:
    args = inputs(chunk, width, dtype)
    cache = args["cache"].clone()
    expected = filter_step(**{**args, "cache": cache}, kernels=False)
    assert_near(filter_step(**args), expected)
    assert_near(args["cache"], cache)


def test_result_does_not_depend_on_chunk_boundaries() -> None:
    args = inputs(4, 32, torch.float16)
    args["counts"], args["slots"] = torch.full_like(args["counts"], 4), integers(0, 1, 2, 3)
    args["write_slots"] = args["slots"]
    stepwise = {**args, "cache": args["cache"].clone(), "counts": torch.full_like(args["counts"], 1)}
    parts = [
        filter_step(**{**stepwise, "x": args["x"][:, step : step + 1].contiguous(), "age": args["age"] + step})
        for step in range(4)
    ]
    assert torch.equal(filter_step(**args), torch.cat(parts, 1))
    assert torch.equal(args["cache"], stepwise["cache"])


@pytest.mark.parametrize("kernels", [False, True])
def test_a_flushed_chunk_does_not_change_its_slot(kernels: bool) -> None:
    args = inputs(4, 32, torch.float32)
    cache = args["cache"].clone()
    expected = filter_step(**{**args, "cache": cache}, kernels=kernels)
    args["write_slots"] = integers(0, 0, 5, 5)
    before = args["cache"].clone()
    assert torch.equal(filter_step(**args, kernels=kernels), expected)
    assert torch.equal(args["cache"][1:], before[1:])
    assert not torch.equal(args["cache"][0], before[0])


def test_device_selects_kernels_by_default() -> None:
    args = inputs(2, 16, torch.float16)
    runs = [filter_step(**{**args, "cache": args["cache"].clone()}, **which) for which in ({}, {"kernels": True})]
    assert torch.equal(*runs)


def test_unsupported_memory_layout_is_rejected() -> None:
    args = inputs(2, 16, torch.float32)
    args["weight"] = args["weight"].T.contiguous().T
    with pytest.raises(ValueError, match="must be contiguous"):
        filter_step(**args)
    args["x"] = F.pad(args["x"], (0, 1))[..., :-1]
    with pytest.raises(ValueError, match="must be contiguous"):
        filter_step(**args)
