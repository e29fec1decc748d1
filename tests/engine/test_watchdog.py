"""The watchdog counts pings without a message, and starts without work."""

from __future__ import annotations

from conure.engine.messages import Pong, StreamTokens
from conure.engine.watchdog import MAX_DELAY, MAX_LATE, MAX_MISSED, MAX_STARTS, Watchdog

PONG = Pong(0)
WORK = StreamTokens(1, (), 0.16)


def alive() -> Watchdog:
    watchdog = Watchdog()
    watchdog.engine_started()
    watchdog.messages_received([PONG])
    return watchdog


def test_an_engine_is_not_responsive_before_its_first_message() -> None:
    watchdog = Watchdog()
    assert not watchdog.is_responsive
    watchdog.engine_started()
    assert not watchdog.is_responsive
    watchdog.messages_received([PONG])
    assert watchdog.is_responsive
    watchdog.engine_started()
    assert not watchdog.is_responsive


def test_missed_pings_are_counted() -> None:
    watchdog = alive()
    for pings in range(1, MAX_MISSED):
        assert not watchdog.ping_missed()
        assert watchdog.is_responsive is (pings < MAX_LATE)
    assert watchdog.ping_missed()


def test_any_message_is_progress() -> None:
    watchdog = alive()
    for _ in range(10 * MAX_MISSED):
        assert not watchdog.ping_missed()
        watchdog.messages_received([WORK])
    for _ in range(MAX_MISSED - 1):
        assert not watchdog.ping_missed()
    watchdog.messages_received([WORK])
    assert watchdog.is_responsive
    assert not watchdog.ping_missed()


def test_a_new_engine_starts_without_missed_pings() -> None:
    watchdog = alive()
    for _ in range(MAX_MISSED):
        watchdog.ping_missed()
    watchdog.engine_started()
    for _ in range(MAX_MISSED - 1):
        assert not watchdog.ping_missed()
    assert watchdog.ping_missed()


def test_occasional_crashes_never_end_the_restarts() -> None:
    watchdog = alive()
    for _ in range(1000):
        assert watchdog.may_start
        watchdog.engine_started()
        watchdog.messages_received([PONG])
        watchdog.messages_received([WORK])
        assert watchdog.start_delay == 0


def test_starts_without_a_message_are_limited() -> None:
    watchdog = alive()
    for _ in range(MAX_STARTS):
        assert watchdog.may_start
        watchdog.engine_started()
    assert not watchdog.may_start


def test_the_start_delay_grows_while_no_work_is_done() -> None:
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
