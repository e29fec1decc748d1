"""Tiled attention equals attention over the full score matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from conure.fused.clip_attention import attend_clip, distance_to_key_scores
from conure.models.attention import Attention
from tests.fused.devices import DEVICE, DTYPES, assert_near, integers, noise
from tests.models.networks import OFFLINE, network


def inputs(steps: int, width: int, dtype: torch.dtype) -> dict[str, Any]:
    torch.manual_seed(steps)
    query, key, value = noise(3, steps, 3, 2, width, dtype=dtype).unbind(2)
    return {
        "query": query,
        "key": key,
        "value": value,
        "positions": noise(2 * steps - 1, 2, width, dtype=dtype).transpose(0, 1),
        "bias_u": noise(2, width, dtype=dtype),
        "bias_v": noise(2, width, dtype=dtype),
        "counts": integers(steps, -(-steps // 3), 0),
    }


def valid(mixed: Tensor, counts: Tensor) -> Tensor:
    return torch.cat([row[:count] for row, count in zip(mixed, counts.tolist(), strict=True)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("steps", "width"), [(1, 16), (64, 20), (97, 64)])
def test_kernel_matches_reference(steps: int, width: int, dtype: torch.dtype) -> None:
    args = inputs(steps, width, dtype)
    got, expected = (attend_clip(**args, kernels=kernels) for kernels in (True, False))
    assert_near(valid(got, args["counts"]), valid(expected, args["counts"]))
    assert got.isfinite().all()


def test_device_selects_kernels_by_default() -> None:
    args = inputs(20, 16, torch.float32)
    assert torch.equal(attend_clip(**args), attend_clip(**args, kernels=True))
    assert not torch.equal(attend_clip(**args), attend_clip(**args, kernels=False))


@pytest.mark.parametrize("kernels", [False, True])
@torch.inference_mode()
def test_it_equals_the_encoder_attention(kernels: bool) -> None:
    encoder = network(OFFLINE).encoder.to(DEVICE)
    attention: Attention = encoder.layers[0].self_attn  # type: ignore[assignment]
    steps, counts = 37, integers(37, 20)
    positions = encoder.positions(steps - 1, 1 - steps)[0]
    x = noise(2, steps, OFFLINE.width)
    keep = torch.arange(steps, device=DEVICE) < counts[:, None]
    expected = attention(x, positions, keep[:, None, None])
    query, key, value = torch.stack(attention.project(x), 3).transpose(1, 2).transpose(2, 3).unbind(2)
    biases = attention.pos_bias_u, attention.pos_bias_v
    mixed = attend_clip(query, key, value, positions, *biases, counts, kernels=kernels)
    assert_near(valid(attention.linear_out(mixed), counts), valid(expected, counts))


def test_distance_scores_are_aligned_with_keys() -> None:
    queries, keys, offset = 3, 5, 2
    distances = torch.arange(offset + queries - 1, offset - keys, -1.0)
    shifted = distance_to_key_scores(distances.expand(1, 1, queries, -1), keys)[0, 0]
    row, column = torch.arange(queries)[:, None], torch.arange(keys)[None]
    assert torch.equal(shifted, (offset + row - column).float())


@pytest.mark.parametrize("name", ["key", "positions"])
def test_unsupported_memory_layout_is_rejected(name: str) -> None:
    args = inputs(5, 16, torch.float32)
    args[name] = args[name].transpose(-1, -2).contiguous().transpose(-1, -2)
    with pytest.raises(ValueError, match=r"views of one tensor|contiguous"):
        attend_clip(**args)
