"""The division of memory keeps to the budget, for any needs."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conure.engine.memory.plan import (
    CLIP_SECONDS,
    ClipNeed,
    MemoryGrant,
    ModelNeed,
    StreamNeed,
    divide_memory,
    memory_table,
    total_min_bytes,
)
from conure.errors import OutOfMemory

SIZES = st.integers(0, 10**9)


def costs(second: int, square: int, front: int) -> ClipNeed:
    """Linear, with a quadratic part in the longest clip, as full attention has."""

    def batch(count: int, seconds: float) -> int:
        return int(max(front * count * min(seconds, 120), count * (second * seconds + square * seconds**2)))

    return ClipNeed(batch, max_seconds=240)


STREAMS = st.builds(
    StreamNeed,
    slot_bytes=SIZES,
    max_streams=st.integers(1, 16_384),
    requested=st.none() | st.integers(1, 2_000),
    step_bytes=SIZES,
    max_step_rows=st.integers(1, 256),
    fixed_bytes=SIZES,
)
CLIPS = st.builds(costs, st.integers(1, 10**7), st.integers(0, 10**5), SIZES)
NEEDS = st.lists(
    st.builds(ModelNeed, st.sampled_from(["live", "clips"]), SIZES, st.none() | STREAMS, st.none() | CLIPS), max_size=4
)


@given(NEEDS, st.integers(0, 10**12))
def test_grants_stay_within_the_budget(needs: list[ModelNeed], more: int) -> None:
    budget = total_min_bytes(needs) + more
    grants = divide_memory(budget, needs)
    assert sum(grant.bytes for grant in grants) <= budget
    for grant in grants:
        if grant.need.streams:
            assert grant.need.streams.min_streams <= grant.slots <= grant.need.streams.useful_streams
        if grant.need.clips:
            check_batches(grant, grant.need.clips)


def check_batches(grant: MemoryGrant, clips: ClipNeed) -> None:
    """Every allowed batch fits, and larger ones do not fit or are of no use."""
    assert CLIP_SECONDS <= grant.batch_seconds <= clips.max_seconds
    assert clips.bytes(grant.batch_seconds // CLIP_SECONDS, CLIP_SECONDS) <= grant.batch_bytes
    assert clips.bytes(1, grant.max_clip_seconds) <= grant.batch_bytes
    for seconds in (0.1, 1.0, 7.5, CLIP_SECONDS, 100.0, grant.max_clip_seconds):
        count = grant.max_clips(seconds)
        assert count == 0 or clips.bytes(count, seconds) <= grant.batch_bytes
        assert clips.bytes(count + 1, seconds) > grant.batch_bytes or (count + 1) * max(seconds, 1) > clips.max_seconds
    assert grant.max_clips(grant.max_clip_seconds + 1) == 0 or grant.max_clip_seconds == 4 * 3600


@given(NEEDS, st.integers(0, 10**12), st.integers(0, 10**11))
def test_more_memory_never_grants_less(needs: list[ModelNeed], more: int, still_more: int) -> None:
    before, after = (divide_memory(total_min_bytes(needs) + room, needs) for room in (more, more + still_more))
    for smaller, larger in zip(before, after, strict=True):
        assert smaller.slots <= larger.slots
        assert smaller.batch_bytes <= larger.batch_bytes


@given(NEEDS, st.integers(0, 10**12), st.randoms(use_true_random=False))
def test_the_order_of_models_does_not_matter(needs: list[ModelNeed], more: int, chance: Random) -> None:
    needs = [replace(need, model=str(index)) for index, need in enumerate(needs)]
    mixed = chance.sample(needs, len(needs))
    found, other = (divide_memory(total_min_bytes(needs) + more, order) for order in (needs, mixed))
    assert sorted((g.need.model, g.slots, g.batch_bytes) for g in found) == sorted(
        (g.need.model, g.slots, g.batch_bytes) for g in other
    )


@given(NEEDS.filter(total_min_bytes), st.data())
def test_too_little_memory_raises_with_the_missing_bytes(needs: list[ModelNeed], data: st.DataObject) -> None:
    missing = data.draw(st.integers(1, total_min_bytes(needs)))
    with pytest.raises(OutOfMemory) as refused:
        divide_memory(total_min_bytes(needs) - missing, needs)
    assert refused.value.message.startswith(f"{missing:,} bytes")
    assert refused.value.hint


def test_the_model_that_does_not_fit_is_named() -> None:
    live = ModelNeed("live", 1_000, StreamNeed(slot_bytes=10, max_streams=100, requested=50))
    clips = ModelNeed("clips", 2_000, clips=ClipNeed(lambda count, seconds: int(count * seconds), max_seconds=240))
    with pytest.raises(OutOfMemory, match="531 bytes of memory are missing for the weights of clips"):
        divide_memory(2_999, [live, clips])
    with pytest.raises(OutOfMemory, match="1 bytes of memory are missing for the work of clips"):
        divide_memory(3_529, [live, clips])
    with pytest.raises(OutOfMemory, match=r"the work of live") as refused:
        divide_memory(3_400, [live, clips])
    assert refused.value.hint == "use fewer slots than 50, a smaller model, or fewer models"


def test_the_rest_is_divided_equally() -> None:
    """1,000 bytes beyond the minimum: the clips use 210, and each of the others gets half of the rest."""
    live = ModelNeed("live", 500, StreamNeed(slot_bytes=10, max_streams=1_000))
    other = ModelNeed("other", 500, StreamNeed(slot_bytes=5, max_streams=1_000, fixed_bytes=7))
    clips = ModelNeed("clips", 500, clips=ClipNeed(lambda count, seconds: int(count * seconds), max_seconds=240))
    needs = [live, other, clips]
    grants = divide_memory(total_min_bytes(needs) + 1_000, needs)
    assert [grant.slots for grant in grants] == [1 + 39, 1 + 79, 0]
    assert grants[2].batch_bytes == 240
    assert grants[2].batch_seconds == grants[2].max_clip_seconds == 240
    assert grants[2].max_clips(100.0) == 2
    assert grants[2].max_clips(241.0) == 0


def test_the_memory_table() -> None:
    gigabyte = 10**9
    live = ModelNeed("live", gigabyte, StreamNeed(slot_bytes=gigabyte // 100, max_streams=16_384))
    need = ClipNeed(lambda count, seconds: int(count * seconds * 10**6), max_seconds=240)
    clips = ModelNeed("clips", 2 * gigabyte, clips=need)
    lines = memory_table(8 * gigabyte, divide_memory(8 * gigabyte, [live, clips]))
    assert lines[0] == "live: weights 1.00 GB, 476 slots 4.76 GB"
    assert lines[1] == "clips: weights 2.00 GB, clips 240.0 MB (240 s in a batch, 240 s in a clip at most)"
    assert re.fullmatch(r"0\.0 MB of 8\.00 GB are spare", lines[2])
