"""Measuring batches in a process of its own. The speed itself is not tested."""

import pytest

from conure.bench.batch_bench import Batch, all_sizes, measure_batches
from conure.engine.plan import Plan
from conure.errors import UnknownModel


def test_each_size_is_measured() -> None:
    batches: list[Batch] = []
    measure_batches(Plan(clip_models=("tiny",), device="cpu"), [(1, 1.0), (2, 1.0)], batches.append)
    assert [(batch.clips, batch.length) for batch in batches] == [(1, 1.0), (2, 1.0)]
    assert all(batch.seconds > 0 for batch in batches)


def test_errors_of_the_child_process_are_raised() -> None:
    with pytest.raises(UnknownModel, match="nobody"):
        measure_batches(Plan(clip_models=("nobody",), device="cpu"), [(1, 1.0)], lambda batch: None)


def test_sizes_of_both_curves_in_order_of_audio() -> None:
    sizes = all_sizes()
    assert len(sizes) == len(set(sizes))
    audio = [clips * length for clips, length in sizes]
    assert audio == sorted(audio)
    assert {(1, 10.0), (32, 10.0), (1, 30.0), (8, 30.0)} <= set(sizes)


def test_speed_is_a_multiple_of_real_time() -> None:
    assert Batch(clips=8, length=10.0, seconds=2.0).speed == 40
