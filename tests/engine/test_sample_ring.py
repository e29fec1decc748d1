"""Samples are read completely and in order, and unread ones are never overwritten."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conure.engine.ipc.sample_ring import SampleRing


@pytest.fixture
def pair() -> Iterator[tuple[SampleRing, SampleRing]]:
    writer = SampleRing.create(100)
    reader = SampleRing.attach(writer.name)
    yield writer, reader
    reader.close()
    writer.close()


@given(st.lists(st.one_of(st.integers(0, 50), st.none()), max_size=60))
def test_samples_are_read_as_written(steps: list[int | None]) -> None:
    writer = SampleRing.create(100)
    reader = SampleRing.attach(writer.name)
    waiting: deque[tuple[tuple[int, int], np.ndarray]] = deque()
    rng = np.random.default_rng(0)
    for count in steps:
        if count is None:
            if waiting:
                place, samples = waiting.popleft()
                assert np.array_equal(reader.read(*place), samples)
            continue
        samples = rng.standard_normal(count).astype(np.float32)
        place = writer.write(samples)
        if place is None:
            assert waiting, "an empty ring has room for half of its size"
        else:
            waiting.append((place, samples))
    for place, samples in waiting:
        assert np.array_equal(reader.read(*place), samples)
    reader.close()
    writer.close()


def test_a_full_ring_is_reported(pair: tuple[SampleRing, SampleRing]) -> None:
    writer, reader = pair
    place = writer.write(np.ones(80, np.float32))
    assert place == (0, 80)
    assert writer.write(np.ones(30, np.float32)) is None
    reader.read(*place)
    assert writer.write(np.ones(30, np.float32)) == (100, 30)


def test_more_samples_than_the_ring_holds_never_fit(pair: tuple[SampleRing, SampleRing]) -> None:
    assert pair[0].write(np.ones(101, np.float32)) is None
