"""Samples by their place in the stream."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conure.audio.sample_buffer import SampleBuffer


def read(backlog: SampleBuffer, begin: int, count: int, end: int | None = None) -> list[float]:
    out = np.full(count, np.nan, np.float32)
    backlog.read_into(begin, out, end)
    return out.tolist()


def test_zeros_surround_what_there_is() -> None:
    backlog = SampleBuffer()
    backlog.append(np.arange(1, 6, dtype=np.float32))
    assert read(backlog, -2, 9) == [0, 0, 1, 2, 3, 4, 5, 0, 0]
    assert read(backlog, 1, 4, end=3) == [2, 3, 0, 0]
    assert read(backlog, 9, 2) == [0, 0]


def test_what_was_forgotten_cannot_be_read() -> None:
    backlog = SampleBuffer()
    backlog.append(np.ones(20_000, np.float32))
    backlog.discard_before(18_000)
    assert backlog.end == 20_000
    assert read(backlog, 18_000, 1) == [1]
    with pytest.raises(ValueError, match="forgotten"):
        read(backlog, 100, 1)


@given(st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 60_000)), max_size=12))
def test_places_stay_as_it_grows_and_forgets(turns: list[tuple[int, int]]) -> None:
    backlog, needed = SampleBuffer(), 0
    for count, done in turns:
        backlog.append(np.arange(backlog.end, backlog.end + count, dtype=np.float32))
        needed = max(needed, min(done, backlog.end))
        backlog.discard_before(needed)
        place = min(needed, backlog.end)
        assert read(backlog, place, 3) == [p if p < backlog.end else 0 for p in range(place, place + 3)]


def test_memory_is_given_back() -> None:
    tracemalloc.start()
    try:
        backlog = SampleBuffer()
        backlog.append(np.ones(1_000_000, np.float32))
        backlog.discard_before(900_000)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
        backlog.discard_before(1_000_000)
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    assert backlog.end == 1_000_000


def test_a_view_is_what_is_there_and_nothing_that_was_forgotten() -> None:
    backlog = SampleBuffer()
    backlog.append(np.arange(20_000, dtype=np.float32))
    backlog.discard_before(15_000)
    assert backlog.start > 0
    assert backlog.view(19_990, 20_010).tolist() == list(range(19_990, 20_000))
    with pytest.raises(ValueError, match="was forgotten"):
        backlog.view(backlog.start - 1, 20_000)
