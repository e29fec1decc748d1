"""The plan of a device's memory keeps what it promises, whatever the models need."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conure.engine.memory.plan import CLIP, Clips, Grant, Need, Streams, least, share, table
from conure.errors import OutOfMemory

SIZES = st.integers(0, 10**9)


def costs(second: int, square: int, front: int) -> Clips:
    """Linear, with a part that grows with the square of the longest, as full attention has it."""

    def batch(count: int, seconds: float) -> int:
        return int(max(front * count * min(seconds, 120), count * (second * seconds + square * seconds**2)))

    return Clips(batch, most=240)


STREAMS = st.builds(
    Streams,
    row=SIZES,
    most=st.integers(1, 16_384),
    asked=st.none() | st.integers(1, 2_000),
    turn=SIZES,
    together=st.integers(1, 256),
    fixed=SIZES,
)
CLIPS = st.builds(costs, st.integers(1, 10**7), st.integers(0, 10**5), SIZES)
NEEDS = st.lists(
    st.builds(Need, st.sampled_from(["live", "clips"]), SIZES, st.none() | STREAMS, st.none() | CLIPS), max_size=4
)


@given(NEEDS, st.integers(0, 10**12))
def test_no_more_than_there_is(needs: list[Need], more: int) -> None:
    budget = least(needs) + more
    grants = share(budget, needs)
    assert sum(grant.bytes for grant in grants) <= budget
    for grant in grants:
        if grant.need.streams:
            assert grant.need.streams.least <= grant.rows <= grant.need.streams.wanted
        if grant.need.clips:
            check_batches(grant, grant.need.clips)


def check_batches(grant: Grant, clips: Clips) -> None:
    """Every batch that the lane may form fits, and what it may not form does not, or is of no use."""
    assert CLIP <= grant.seconds <= clips.most
    assert clips.bytes(grant.seconds // CLIP, CLIP) <= grant.batches
    assert clips.bytes(1, grant.longest) <= grant.batches
    for seconds in (0.1, 1.0, 7.5, CLIP, 100.0, grant.longest):
        count = grant.most_clips(seconds)
        assert count == 0 or clips.bytes(count, seconds) <= grant.batches
        assert clips.bytes(count + 1, seconds) > grant.batches or (count + 1) * max(seconds, 1) > clips.most
    assert grant.most_clips(grant.longest + 1) == 0 or grant.longest == 4 * 3600


@given(NEEDS, st.integers(0, 10**12), st.integers(0, 10**11))
def test_more_memory_is_never_fewer_rows(needs: list[Need], more: int, still_more: int) -> None:
    before, after = (share(least(needs) + room, needs) for room in (more, more + still_more))
    for one, other in zip(before, after, strict=True):
        assert one.rows <= other.rows
        assert one.batches <= other.batches


@given(NEEDS, st.integers(0, 10**12), st.randoms(use_true_random=False))
def test_the_order_of_models_does_not_matter(needs: list[Need], more: int, chance: Random) -> None:
    needs = [replace(need, model=str(index)) for index, need in enumerate(needs)]
    mixed = chance.sample(needs, len(needs))
    found, other = (share(least(needs) + more, order) for order in (needs, mixed))
    assert sorted((g.need.model, g.rows, g.batches) for g in found) == sorted(
        (g.need.model, g.rows, g.batches) for g in other
    )


@given(NEEDS.filter(least), st.data())
def test_too_little_is_refused_with_what_is_missing(needs: list[Need], data: st.DataObject) -> None:
    missing = data.draw(st.integers(1, least(needs)))
    with pytest.raises(OutOfMemory) as refused:
        share(least(needs) - missing, needs)
    assert refused.value.message.startswith(f"{missing:,} bytes")
    assert refused.value.hint


def test_the_model_that_does_not_fit_is_named() -> None:
    live = Need("live", 1_000, Streams(row=10, most=100, asked=50))
    clips = Need("clips", 2_000, clips=Clips(lambda count, seconds: int(count * seconds), most=240))
    with pytest.raises(OutOfMemory, match="531 bytes of memory are missing for the weights of clips"):
        share(2_999, [live, clips])
    with pytest.raises(OutOfMemory, match="1 bytes of memory are missing for the work of clips"):
        share(3_529, [live, clips])
    with pytest.raises(OutOfMemory, match=r"the work of live") as refused:
        share(3_400, [live, clips])
    assert refused.value.hint == "ask for fewer slots than 50, a smaller model, or fewer models"


def test_the_rest_is_shared_equally() -> None:
    """1,000 bytes beyond the least: the clips want 210, and each of the others gets half of what they leave."""
    live = Need("live", 500, Streams(row=10, most=1_000))
    other = Need("other", 500, Streams(row=5, most=1_000, fixed=7))
    clips = Need("clips", 500, clips=Clips(lambda count, seconds: int(count * seconds), most=240))
    needs = [live, other, clips]
    grants = share(least(needs) + 1_000, needs)
    assert [grant.rows for grant in grants] == [1 + 39, 1 + 79, 0]
    assert grants[2].batches == 240
    assert grants[2].seconds == grants[2].longest == 240
    assert grants[2].most_clips(100.0) == 2
    assert grants[2].most_clips(241.0) == 0


def test_people_are_told() -> None:
    gigabyte = 10**9
    live = Need("live", gigabyte, Streams(row=gigabyte // 100, most=16_384))
    clips = Need("clips", 2 * gigabyte, clips=Clips(lambda count, seconds: int(count * seconds * 10**6), most=240))
    lines = table(8 * gigabyte, share(8 * gigabyte, [live, clips]))
    assert lines[0] == "live: weights 1.00 GB, 476 rows 4.76 GB"
    assert lines[1] == "clips: weights 2.00 GB, clips 240.0 MB (240 s at once, one of 240 s at most)"
    assert re.fullmatch(r"0\.0 MB of 8\.00 GB are spare", lines[2])
