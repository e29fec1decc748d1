"""Streams in slots of a device have the results of single streams."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from conure.audio.files import open_audio
from conure.vad.silero import SileroState, load_silero
from conure.vad.silero_torch import SileroRows, SlotSilero
from conure.vad.silero_weights import STEP, silero_tensors

DATA = Path(__file__).parents[1] / "data"
CLOSE = {"atol": 2e-5, "rtol": 0}


@pytest.fixture(scope="module")
def network() -> SlotSilero:
    return SlotSilero(silero_tensors(), torch.device("cpu"))


@pytest.fixture(scope="module")
def speech() -> list[np.ndarray]:
    """Recordings in whole steps [m, 512]."""
    files = [DATA / "demo.flac", *sorted((DATA / "strings").glob("an4-*.flac"))]
    clips = []
    for file in files:
        with open_audio(file) as audio:
            samples = np.concatenate([block[0] for block in audio.blocks()])
        clips.append(samples[: len(samples) // STEP * STEP].reshape(-1, STEP))
    return clips


@dataclass
class SlotStream:
    slot: int
    steps: np.ndarray
    heard: list[float] = field(default_factory=list)
    is_fresh: bool = True


def block(some: list[tuple[SlotStream, int]], rows: int, most: int, scratch: int) -> tuple[torch.Tensor, ...]:
    """The samples of each stream, then padding; NaN where there is no sample."""
    samples = np.full((rows, most, STEP), np.nan, np.float32)
    for row, (tenant, count) in enumerate(some):
        samples[row, :count] = tenant.steps[len(tenant.heard) :][:count]
    padding = rows - len(some)
    counts = [count for _, count in some] + [0] * padding
    fresh = [tenant.is_fresh for tenant, _ in some] + [False, True] * padding
    slots = [tenant.slot for tenant, _ in some] + [scratch] * padding
    told = (torch.tensor(counts), torch.tensor(fresh[:rows]), torch.tensor(slots))
    return torch.from_numpy(samples.reshape(rows, -1)), *told


def check(tenant: SlotStream, state: SileroRows) -> None:
    """Compares results and state of a slot with those of a single stream."""
    (alone,), (after,) = load_silero().detect_batch(tenant.steps.reshape(1, -1), [SileroState()])
    np.testing.assert_allclose(tenant.heard, alone, **CLOSE)
    np.testing.assert_allclose(state.values[tenant.slot], after.values, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_any_age_equal_single_streams(network: SlotSilero, speech: list[np.ndarray], seed: int) -> None:
    chance, slots, rows, most = random.Random(seed), 4, 6, 3
    state = network.allocate(slots + 1)
    state.values.fill_(7.0)
    waiting = [clip[chance.randrange(20) :] for clip in speech for _ in range(2)]
    tenants: list[SlotStream] = []
    finished = 0
    while waiting or tenants:
        while waiting and len(tenants) < slots:
            free = set(range(slots)) - {tenant.slot for tenant in tenants}
            tenants.append(SlotStream(chance.choice(sorted(free)), waiting.pop()))
        chosen = chance.sample(tenants, chance.randint(1, len(tenants)))
        some = [(tenant, min(chance.randint(0, most), len(tenant.steps) - len(tenant.heard))) for tenant in chosen]
        probabilities = network.detect(*block(some, rows, most, scratch=slots), state)
        assert probabilities.shape == (rows, most)
        for (tenant, count), steps in zip(some, probabilities.tolist(), strict=False):
            tenant.heard += steps[:count]
            tenant.is_fresh = False
        for tenant in [tenant for tenant in tenants if len(tenant.heard) == len(tenant.steps)]:
            check(tenant, state)
            tenants.remove(tenant)
            finished += 1
    assert finished == 2 * len(speech)


@pytest.mark.parametrize("most", [1, 2, 35])
def test_batches_equal_the_reference(network: SlotSilero, speech: list[np.ndarray], most: int) -> None:
    rows, plain = len(speech), [SileroState()] * len(speech)
    state = network.allocate(rows)
    for first in range(0, min(len(clip) for clip in speech) - most + 1, most):
        samples = np.stack([clip[first : first + most].reshape(-1) for clip in speech])
        wanted, plain = load_silero().detect_batch(samples, plain)
        counts, fresh = torch.full((rows,), most), torch.full((rows,), first == 0)
        heard = network.detect(torch.from_numpy(samples), counts, fresh, torch.arange(rows), state)
        np.testing.assert_allclose(heard, wanted, **CLOSE)


def test_other_slots_are_unchanged(network: SlotSilero, speech: list[np.ndarray]) -> None:
    state = network.allocate(4)
    state.values.copy_(torch.randn(4, state.values.shape[1], generator=torch.Generator().manual_seed(0)))
    before = state.values.clone()
    network.detect(*block([(SlotStream(2, speech[0]), 2)], rows=1, most=2, scratch=3), state)
    assert torch.equal(state.values[[0, 1, 3]], before[[0, 1, 3]])
    assert not torch.equal(state.values[2], before[2])


class Calls(TorchDispatchMode):
    """Names of called operations, down to those of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.made: set[str] = set()
        """Those that make a tensor of no other's numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:
            made_of_others = func.decompose(*args, **(kwargs or {}))
        if made_of_others is not NotImplemented:
            return made_of_others
        name = func.name().removeprefix("aten::").split(".")[0]
        self.names.add(name)
        has_tensor = any(isinstance(value, torch.Tensor) for value in tree_leaves((args, kwargs)))
        if not has_tensor or name.startswith("new_") or name.endswith("_like"):
            self.made.add(name)
        return func(*args, **(kwargs or {}))


SYNCING = {"_local_scalar_dense", "nonzero", "_to_copy", "lift_fresh", "masked_select", "equal", "index", "index_put_"}
"""They take numbers from the device or to it; an index may be of a mask."""


def calls_of(work: Callable[[], object]) -> Calls:
    with torch.inference_mode(), Calls() as calls:
        work()
    return calls


@pytest.mark.parametrize("most", [1, 3])
def test_there_is_no_synchronisation_and_no_copy_from_the_host(network: SlotSilero, most: int) -> None:
    state, samples = network.allocate(3), torch.zeros(2, most * STEP)
    told = (torch.tensor([most, 0]), torch.tensor([True, False]), torch.tensor([1, 2]))
    calls = calls_of(lambda: network.detect(samples, *told, state))
    assert calls.names >= {"index_copy_", "addmm"}
    assert not calls.names & SYNCING
    assert not calls.made


@pytest.mark.parametrize(
    ("work", "name"),
    [
        (lambda: torch.ones(2).sum().item(), "_local_scalar_dense"),
        (lambda: torch.ones(2)[torch.ones(2, dtype=torch.bool)], "index"),
        (lambda: torch.ones(2).to(torch.float64), "_to_copy"),
        (lambda: torch.where(torch.ones(2) > 0, 0.0, torch.ones(2)), "scalar_tensor"),
        (lambda: torch.ones(2).new_zeros(2), "new_zeros"),
        (lambda: torch.arange(2), "arange"),
    ],
)
def test_such_calls_would_be_recorded(work: Callable[[], object], name: str) -> None:
    calls = calls_of(work)
    assert name in (calls.names & SYNCING) | calls.made
