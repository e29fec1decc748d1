"""What a watchdog counts: looks without a word, and starts without an answer."""

from __future__ import annotations

from conure.engine.messages import Pong, StreamTokens
from conure.engine.watchdog import MAX_DELAY, MAX_LATE, MAX_MISSED, MOST_STARTS, Watchdog

PONG = Pong(0)
WORK = StreamTokens(1, (), 0.16)


def alive() -> Watchdog:
    watchdog = Watchdog()
    watchdog.engine_started()
    watchdog.messages_received([PONG])
    return watchdog


def test_nobody_relies_on_an_engine_before_its_first_word() -> None:
    watchdog = Watchdog()
    assert not watchdog.is_responsive
    watchdog.engine_started()
    assert not watchdog.is_responsive
    watchdog.messages_received([PONG])
    assert watchdog.is_responsive
    watchdog.engine_started()
    assert not watchdog.is_responsive


def test_silence_is_counted_in_looks() -> None:
    watchdog = alive()
    for pings in range(1, MAX_MISSED):
        assert not watchdog.ping_missed()
        assert watchdog.is_responsive is (pings < MAX_LATE)
    assert watchdog.ping_missed()


def test_any_word_is_progress() -> None:
    watchdog = alive()
    for _ in range(10 * MAX_MISSED):
        assert not watchdog.ping_missed()
        watchdog.messages_received([WORK])
    for _ in range(MAX_MISSED - 1):
        assert not watchdog.ping_missed()
    watchdog.messages_received([WORK])
    assert watchdog.is_responsive
    assert not watchdog.ping_missed()


def test_a_new_engine_is_not_held_to_what_the_last_one_missed() -> None:
    watchdog = alive()
    for _ in range(MAX_MISSED):
        watchdog.ping_missed()
    watchdog.engine_started()
    for _ in range(MAX_MISSED - 1):
        assert not watchdog.ping_missed()
    assert watchdog.ping_missed()


def test_a_crash_an_hour_goes_on_for_ever() -> None:
    watchdog = alive()
    for _ in range(1000):
        assert watchdog.may_start
        watchdog.engine_started()
        watchdog.messages_received([PONG])
        watchdog.messages_received([WORK])
        assert watchdog.start_delay == 0


def test_starts_without_an_answer_have_an_end() -> None:
    watchdog = alive()
    for _ in range(MOST_STARTS):
        assert watchdog.may_start
        watchdog.engine_started()
    assert not watchdog.may_start


def test_engines_that_answer_and_do_nothing_are_started_less_and_less_often() -> None:
    watchdog = alive()
    pauses = []
    for _ in range(10):
        watchdog.engine_started()
        watchdog.messages_received([PONG])
        assert watchdog.may_start
        pauses.append(watchdog.start_delay)
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_DELAY
    watchdog.messages_received([WORK])
    assert watchdog.start_delay == 0
