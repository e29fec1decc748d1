"""Rings, read and written in place, give what moved caches give; the kernel gives what its plain twin gives."""

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
from tests.fused.devices import DEVICE, DTYPES, assert_near, noise, whole
from tests.models.networks import STREAMING, network

PAST, STREAMS, SCRATCH = 6, 3, 3
ALL = torch.arange(STREAMS, device=DEVICE)


@dataclass
class Moved:
    """Streams' caches as `Layer.step` has them, newest last."""

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


def assert_turns_agree(encoder: Encoder, chunk: int, kernels: bool, turns: int) -> None:
    """Streams begin, pause, end within a chunk and begin anew in the same slot."""
    attention: Attention = encoder.layers[0].self_attn  # type: ignore[assignment]
    heads, width = attention.heads, attention.head_width
    rng = random.Random(chunk)
    positions = encoder.positions(PAST + chunk - 1, 1 - chunk)[0]
    zeros = torch.zeros(STREAMS, heads, PAST, width, device=DEVICE)
    moved = Moved(encoder, attention, chunk, zeros, zeros.clone(), torch.zeros_like(ALL))
    # What nobody has written must not matter, whatever it is.
    keys, values = torch.full((2, STREAMS + 1, heads, PAST, width), torch.nan, device=DEVICE)
    age = torch.zeros(STREAMS + 1, dtype=torch.long, device=DEVICE)
    for _ in range(turns):
        ready = rng.sample(range(STREAMS), 2)
        counts = whole(*(chunk if rng.random() < 0.6 else rng.randint(1, chunk) for _ in ready), 0, 0)
        rows = whole(*ready, SCRATCH, SCRATCH)
        projected = noise(len(rows), chunk, 3, heads, width).unbind(2)
        near = by_distance(attention, projected[0], positions)
        mixed = attend_ring(
            *(projected[0], *near, attention.pos_bias_u, *projected[1:], keys, values, rows, rows, age[rows], counts),
            kernels=kernels,
        )
        expected = moved.attend(tuple(part[:2] for part in projected), rows[:2], counts[:2], positions)
        got = attention.linear_out(mixed)
        for row, count in enumerate(counts[:2].tolist()):
            assert_near(got[row, :count], expected[row, :count])
        assert mixed[2:].eq(0).all()
        assert keys[SCRATCH].isnan().all()
        age[rows] += counts
        ended = rows[:2][counts[:2] < chunk]
        age[ended], moved.length[ended] = 0, 0


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 4, 6])
@torch.inference_mode()
def test_rings_give_what_moved_caches_give(chunk: int, kernels: bool) -> None:
    """Of chunks of 3 a full ring is seen, which is read and written in the same turn."""
    encoder = network(replace(STREAMING, layers=1, width=16, heads=2)).encoder.to(DEVICE)
    assert_turns_agree(encoder, chunk, kernels, turns=2 * PAST // chunk + 2)


def inputs(chunk: int, width: int, dtype: torch.dtype) -> dict[str, Any]:
    """A fresh row, one that has filled a part of its ring, one that has gone round it, one that pads."""
    torch.manual_seed(chunk)
    heads, columns = 2, PAST + 2 * chunk + 3  # wider than it must be, as a row of good length is
    query, key, value = noise(4, chunk, 3, heads, width, dtype=dtype).unbind(2)
    return {
        "query": query,
        "near": noise(heads, 4 * chunk, columns, dtype=dtype),
        "near_bias": noise(heads, columns, dtype=dtype),
        "bias_u": noise(heads, width, dtype=dtype),
        "key": key,
        "value": value,
        "keys": noise(6, heads, PAST, width, dtype=dtype),
        "values": noise(6, heads, PAST, width, dtype=dtype),
        "rows": whole(3, 1, 4, 5),
        "into": whole(3, 1, 4, 5),
        "age": whole(0, 7, 10**12, 3),
        "counts": whole(chunk, chunk, max(1, chunk - 1), 0),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("chunk", "width"), [(1, 16), (4, 20), (6, 128)])
def test_the_kernel_gives_what_its_twin_gives(chunk: int, width: int, dtype: torch.dtype) -> None:
    given = inputs(chunk, width, dtype)
    rings = {name: given[name].clone() for name in ("keys", "values")}
    expected = attend_ring(**{**given, **rings}, kernels=False)
    got = attend_ring(**given)
    assert_near(got, expected)
    assert not torch.equal(got, expected), "both came from the same code"
    for name, ring in rings.items():
        assert torch.equal(given[name], ring)


def test_the_chunk_is_at_its_places_and_nothing_else_has_changed() -> None:
    given = inputs(4, 16, torch.float32)
    before = given["keys"].clone()
    attend_ring(**given)
    for row, (slot, age, count) in enumerate(zip(*(given[n].tolist() for n in ("rows", "age", "counts")), strict=True)):
        for step in range(count):
            before[slot, :, (age + step) % PAST] = given["key"][row, step]
    assert torch.equal(given["keys"], before)


@pytest.mark.parametrize("kernels", [False, True])
def test_a_chunk_that_is_tried_leaves_what_it_reads_as_it_was(kernels: bool) -> None:
    """Two rows write into one slot that nobody reads, and give what they give elsewhere."""
    given = inputs(4, 16, torch.float32)
    rings = {name: given[name].clone() for name in ("keys", "values")}
    expected = attend_ring(**{**given, **rings}, kernels=kernels)
    given["into"] = whole(0, 0, 4, 5)
    before = given["keys"].clone()
    assert torch.equal(attend_ring(**given, kernels=kernels), expected)
    assert torch.equal(given["keys"][[1, 2, 3, 5]], before[[1, 2, 3, 5]])
    assert torch.equal(given["keys"][4], rings["keys"][4])


@pytest.mark.parametrize("name", ["key", "keys"])
def test_what_does_not_lie_as_the_kernel_reads_it_is_refused(name: str) -> None:
    given = inputs(4, 16, torch.float32)
    given[name] = given[name].transpose(-1, -2).contiguous().transpose(-1, -2)
    with pytest.raises(ValueError, match=r"views of one tensor|contiguous"):
        attend_ring(**given)


def test_a_chunk_longer_than_the_rings_is_refused() -> None:
    with pytest.raises(ValueError, match="7 steps does not fit into rings of 6"):
        attend_ring(**inputs(7, 16, torch.float32))
