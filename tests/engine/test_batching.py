"""Batches stay within their limit, buckets within a 32nd."""

from __future__ import annotations

import pytest

from conure.engine.lanes.batching import form_batches, padded_steps
from conure.models.config import MAX_FULL_ATTENTION_STEPS


def test_a_batch_times_its_longest_stays_within_the_limit() -> None:
    lengths = [5, 90, 30, 31, 7, 60, 200, 1]
    found = list(form_batches(lengths, 100))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or max(lengths[index] for index in batch) * len(batch) <= 100 for batch in found)
    assert found[0] == [6]


def test_long_clips_are_batched_separately() -> None:
    assert list(form_batches([5, 90, 30, 91], 1000, long_clip=30)) == [[3, 1], [2, 0]]


def test_a_bucket_is_at_least_the_input_and_a_fixed_point() -> None:
    for steps in range(1, 4000):
        padded = padded_steps(steps)
        assert padded >= steps
        assert padded_steps(padded) == padded
        assert padded % 8 == 0


@pytest.mark.parametrize(("octave", "found"), [(256, 32), (512, 32), (8192, 32)])
def test_few_bucket_sizes_and_little_padding(octave: int, found: int) -> None:
    steps = range(octave, 2 * octave)
    assert len({padded_steps(count) for count in steps} - {octave}) == found
    assert max(padded_steps(count) / count for count in steps) < 1 + 1 / 32


def test_padding_does_not_make_a_clip_long() -> None:
    assert padded_steps(MAX_FULL_ATTENTION_STEPS) == MAX_FULL_ATTENTION_STEPS
