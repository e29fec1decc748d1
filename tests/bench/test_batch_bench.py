"""Batches in a process of their own. How fast they are says nothing here."""

import pytest

from conure.bench.batch_bench import Batch, every_size, measure_batches
from conure.engine.plan import Plan
from conure.errors import UnknownModel


def test_each_size_is_measured() -> None:
    found: list[Batch] = []
    measure_batches(Plan(clips=("tiny",), device="cpu"), [(1, 1.0), (2, 1.0)], found.append)
    assert [(batch.clips, batch.length) for batch in found] == [(1, 1.0), (2, 1.0)]
    assert all(batch.seconds > 0 for batch in found)


def test_what_went_wrong_there_is_raised_here() -> None:
    with pytest.raises(UnknownModel, match="nobody"):
        measure_batches(Plan(clips=("nobody",), device="cpu"), [(1, 1.0)], lambda batch: None)


def test_sizes_are_those_of_both_curves_the_least_first() -> None:
    sizes = every_size()
    assert len(sizes) == len(set(sizes))
    audio = [clips * length for clips, length in sizes]
    assert audio == sorted(audio)
    assert {(1, 10.0), (32, 10.0), (1, 30.0), (8, 30.0)} <= set(sizes)


def test_a_batch_is_as_fast_as_its_audio_is_long() -> None:
    assert Batch(clips=8, length=10.0, seconds=2.0).speed == 40
