"""Samples addressed by their index in the stream."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conure.audio.sample_buffer import SampleBuffer


def read(buffer: SampleBuffer, begin: int, count: int, end: int | None = None) -> list[float]:
    out = np.full(count, np.nan, np.float32)
    buffer.read_into(begin, out, end)
    return out.tolist()


def test_samples_outside_the_stream_are_zero() -> None:
    buffer = SampleBuffer()
    buffer.append(np.arange(1, 6, dtype=np.float32))
    assert read(buffer, -2, 9) == [0, 0, 1, 2, 3, 4, 5, 0, 0]
    assert read(buffer, 1, 4, end=3) == [2, 3, 0, 0]
    assert read(buffer, 9, 2) == [0, 0]


def test_discarded_samples_cannot_be_read() -> None:
    buffer = SampleBuffer()
    buffer.append(np.ones(20_000, np.float32))
    buffer.discard_before(18_000)
    assert buffer.end == 20_000
    assert read(buffer, 18_000, 1) == [1]
    with pytest.raises(ValueError, match="discarded"):
        read(buffer, 100, 1)


@given(st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 60_000)), max_size=12))
def test_indexes_are_stable_after_append_and_discard(turns: list[tuple[int, int]]) -> None:
    buffer, needed = SampleBuffer(), 0
    for count, done in turns:
        buffer.append(np.arange(buffer.end, buffer.end + count, dtype=np.float32))
        needed = max(needed, min(done, buffer.end))
        buffer.discard_before(needed)
        place = min(needed, buffer.end)
        assert read(buffer, place, 3) == [p if p < buffer.end else 0 for p in range(place, place + 3)]


def test_memory_is_released() -> None:
    tracemalloc.start()
    try:
        buffer = SampleBuffer()
        buffer.append(np.ones(1_000_000, np.float32))
        buffer.discard_before(900_000)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
        buffer.discard_before(1_000_000)
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    assert buffer.end == 1_000_000


def test_a_view_contains_only_available_samples() -> None:
    buffer = SampleBuffer()
    buffer.append(np.arange(20_000, dtype=np.float32))
    buffer.discard_before(15_000)
    assert buffer.start > 0
    assert buffer.view(19_990, 20_010).tolist() == list(range(19_990, 20_000))
    with pytest.raises(ValueError, match="was discarded"):
        buffer.view(buffer.start - 1, 20_000)
