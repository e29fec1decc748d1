"""Times at which audio was spoken, for live audio and audio sent faster than real time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conure.audio.realtime_clock import MAX_PACKET_SECONDS, RealtimeClock
from conure.constants import SAMPLE_RATE

PACKET = SAMPLE_RATE // 50


def live(seconds: float, begin: float = 100.0) -> RealtimeClock:
    spoken = RealtimeClock()
    for number in range(round(seconds * 50)):
        spoken.add_packet(PACKET, begin + (number + 1) / 50)
    return spoken


def test_live_audio_was_spoken_before_it_arrived() -> None:
    spoken = live(2.0)
    for place in (PACKET, SAMPLE_RATE // 2, SAMPLE_RATE, 2 * SAMPLE_RATE):
        assert spoken.spoken_at(place) == pytest.approx(100.0 + place / SAMPLE_RATE, abs=1e-6)
    assert spoken.lag(SAMPLE_RATE, 102.5) == pytest.approx(1.5)
    assert spoken.lag(2 * SAMPLE_RATE, 109.0) == 0.0


def test_audio_that_arrives_at_once_is_spoken_from_then_on() -> None:
    spoken = RealtimeClock()
    spoken.add_packet(600 * SAMPLE_RATE, 100.0)
    assert spoken.spoken_at(300 * SAMPLE_RATE) == pytest.approx(400.0 - MAX_PACKET_SECONDS)
    assert spoken.lag(0, 150.0) == pytest.approx(50.0 + MAX_PACKET_SECONDS)
    assert spoken.lag(60 * SAMPLE_RATE, 150.0) == 0.0


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=40))
def test_the_size_of_packets_makes_no_difference(sizes: list[int]) -> None:
    spoken = RealtimeClock()
    for size in sizes:
        spoken.add_packet(size, 100.0)
    place = sum(sizes)
    assert 100.0 - MAX_PACKET_SECONDS - 1e-6 <= spoken.spoken_at(place) - place / SAMPLE_RATE <= 100.0
    assert len(spoken._marks) == 1


def test_a_pause_is_not_caught_up() -> None:
    spoken = live(1.0)
    spoken.add_packet(PACKET, 111.02)
    assert spoken.lag(SAMPLE_RATE, 112.0) == pytest.approx(1.0)
    assert spoken.spoken_at(SAMPLE_RATE + PACKET) == pytest.approx(111.02)


def test_a_stream_that_was_ahead_and_is_processed_is_in_real_time_again() -> None:
    spoken = RealtimeClock()
    spoken.add_packet(10 * SAMPLE_RATE, 100.0)
    assert spoken.lag(10 * SAMPLE_RATE, 101.0) == 0.0
    spoken.reset_lead(101.0)
    spoken.add_packet(PACKET, 101.02)
    assert spoken.spoken_at(10 * SAMPLE_RATE + PACKET) == pytest.approx(101.02)
    assert spoken.lag(10 * SAMPLE_RATE, 102.0) == pytest.approx(1.0)


def test_the_lag_counts_from_a_restart() -> None:
    spoken = live(5.0)
    spoken.restart(2 * SAMPLE_RATE, 200.0)
    assert spoken.lag(2 * SAMPLE_RATE, 200.5) == pytest.approx(0.5)
    assert spoken.spoken_at(5 * SAMPLE_RATE) == pytest.approx(203.0)


@given(st.lists(st.tuples(st.floats(0.0, 0.05), st.integers(1, 3_000)), max_size=100))
def test_the_number_of_marks_is_bounded_by_the_backlog(packets: list[tuple[float, int]]) -> None:
    spoken, now, place = RealtimeClock(), 100.0, 0
    for pause, size in packets:
        now += pause
        spoken.add_packet(size, now)
        place += size
        spoken.discard_before(place - size)
        assert len(spoken._marks) <= 3
