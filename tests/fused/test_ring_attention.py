"""Ring attention equals attention over shifted caches; the kernel equals the reference."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from conure.fused.ring_attention import attend_ring
from conure.models.attention import Attention
from conure.models.conformer import Encoder
from tests.fused.devices import DEVICE, DTYPES, assert_near, integers, noise
from tests.models.networks import STREAMING, network

PAST, STREAMS, SCRATCH = 6, 3, 3
ALL = torch.arange(STREAMS, device=DEVICE)


@dataclass
class ShiftedCaches:
    """Shifted caches of streams as in `Layer.step`, newest step last."""

    encoder: Encoder
    attention: Attention
    chunk: int
    keys: Tensor
    values: Tensor
    length: Tensor

    def attend(self, projected: tuple[Tensor, ...], rows: Tensor, counts: Tensor, positions: Tensor) -> Tensor:
        query, key, value = (part.transpose(1, 2) for part in projected)
        key, value = torch.cat([self.keys[rows], key], 2), torch.cat([self.values[rows], value], 2)
        keep, _ = self.encoder._step_masks(self.length[rows], counts, self.chunk, PAST)
        self.keys[rows], self.values[rows] = key[:, :, self.chunk :], value[:, :, self.chunk :]
        self.length[rows] = (self.length[rows] + counts).clamp(max=PAST)
        return self.attention.attend(query, key, value, positions, keep)


def by_distance(attention: Attention, query: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    by_head = query.permute(2, 0, 1, 3).flatten(1, 2)
    near_bias = attention.pos_bias_v[:, None] @ positions.transpose(1, 2)
    return by_head @ positions.transpose(1, 2), near_bias[:, 0]


def assert_steps_agree(encoder: Encoder, chunk: int, kernels: bool, steps: int) -> None:
    """Streams begin, pause, end within a chunk and restart in the same slot."""
    attention: Attention = encoder.layers[0].self_attn  # type: ignore[assignment]
    heads, width = attention.heads, attention.head_width
    rng = random.Random(chunk)
    positions = encoder.positions(PAST + chunk - 1, 1 - chunk)[0]
    zeros = torch.zeros(STREAMS, heads, PAST, width, device=DEVICE)
    shifted = ShiftedCaches(encoder, attention, chunk, zeros, zeros.clone(), torch.zeros_like(ALL))
    # Uninitialised memory must not matter.
    keys, values = torch.full((2, STREAMS + 1, heads, PAST, width), torch.nan, device=DEVICE)
    age = torch.zeros(STREAMS + 1, dtype=torch.long, device=DEVICE)
    for _ in range(steps):
        ready = rng.sample(range(STREAMS), 2)
        counts = integers(*(chunk if rng.random() < 0.6 else rng.randint(1, chunk) for _ in ready), 0, 0)
        rows = integers(*ready, SCRATCH, SCRATCH)
        projected = noise(len(rows), chunk, 3, heads, width).unbind(2)
        near = by_distance(attention, projected[0], positions)
        mixed = attend_ring(
            *(projected[0], *near, attention.pos_bias_u, *projected[1:], keys, values, rows, rows, age[rows], counts),
            kernels=kernels,
        )
        expected = shifted.attend(tuple(part[:2] for part in projected), rows[:2], counts[:2], positions)
        got = attention.linear_out(mixed)
        for row, count in enumerate(counts[:2].tolist()):
            assert_near(got[row, :count], expected[row, :count])
        assert mixed[2:].eq(0).all()
        assert keys[SCRATCH].isnan().all()
        age[rows] += counts
        ended = rows[:2][counts[:2] < chunk]
        age[ended], shifted.length[ended] = 0, 0


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 4, 6])
@torch.inference_mode()
def test_rings_match_shifted_caches(chunk: int, kernels: bool) -> None:
    """With chunks of 3 the whole ring is visible and is read and written in the same step."""
    encoder = network(replace(STREAMING, layers=1, width=16, heads=2)).encoder.to(DEVICE)
    assert_steps_agree(encoder, chunk, kernels, steps=2 * PAST // chunk + 2)


def inputs(chunk: int, width: int, dtype: torch.dtype) -> dict[str, Any]:
    """A new row, one with a partly filled ring, one whose ring has wrapped around, and a padding row."""
    torch.manual_seed(chunk)
    heads, columns = 2, PAST + 2 * chunk + 3  # wider than necessary, like aligned rows
    query, key, value = noise(4, chunk, 3, heads, width, dtype=dtype).unbind(2)
    return {
        "query": query,
        "position_scores": noise(heads, 4 * chunk, columns, dtype=dtype),
        "position_bias": noise(heads, columns, dtype=dtype),
        "bias_u": noise(heads, width, dtype=dtype),
        "key": key,
        "value": value,
        "keys": noise(6, heads, PAST, width, dtype=dtype),
        "values": noise(6, heads, PAST, width, dtype=dtype),
        "slots": integers(3, 1, 4, 5),
        "write_slots": integers(3, 1, 4, 5),
        "age": integers(0, 7, 10**12, 3),
        "counts": integers(chunk, chunk, max(1, chunk - 1), 0),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("chunk", "width"), [(1, 16), (4, 20), (6, 128)])
def test_kernel_matches_reference(chunk: int, width: int, dtype: torch.dtype) -> None:
    args = inputs(chunk, width, dtype)
    rings = {name: args[name].clone() for name in ("keys", "values")}
    expected = attend_ring(**{**args, **rings}, kernels=False)
    got = attend_ring(**args)
    assert_near(got, expected)
    assert not torch.equal(got, expected), "both came from the same code"
    for name, ring in rings.items():
        assert torch.equal(args[name], ring)


def test_only_the_steps_of_the_chunk_change() -> None:
    args = inputs(4, 16, torch.float32)
    before = args["keys"].clone()
    attend_ring(**args)
    for row, (slot, age, count) in enumerate(zip(*(args[n].tolist() for n in ("slots", "age", "counts")), strict=True)):
        for step in range(count):
            before[slot, :, (age + step) % PAST] = args["key"][row, step]
    assert torch.equal(args["keys"], before)


@pytest.mark.parametrize("kernels", [False, True])
def test_a_flushed_chunk_does_not_change_its_slot(kernels: bool) -> None:
    """Two rows write to the scratch slot and return the same values."""
    args = inputs(4, 16, torch.float32)
    rings = {name: args[name].clone() for name in ("keys", "values")}
    expected = attend_ring(**{**args, **rings}, kernels=kernels)
    args["write_slots"] = integers(0, 0, 4, 5)
    before = args["keys"].clone()
    assert torch.equal(attend_ring(**args, kernels=kernels), expected)
    assert torch.equal(args["keys"][[1, 2, 3, 5]], before[[1, 2, 3, 5]])
    assert torch.equal(args["keys"][4], rings["keys"][4])


@pytest.mark.parametrize("name", ["key", "keys"])
def test_unsupported_memory_layout_is_rejected(name: str) -> None:
    args = inputs(4, 16, torch.float32)
    args[name] = args[name].transpose(-1, -2).contiguous().transpose(-1, -2)
    with pytest.raises(ValueError, match=r"views of one tensor|contiguous"):
        attend_ring(**args)


def test_a_chunk_longer_than_the_rings_is_rejected() -> None:
    with pytest.raises(ValueError, match="7 steps does not fit into rings of 6"):
        attend_ring(**inputs(7, 16, torch.float32))
