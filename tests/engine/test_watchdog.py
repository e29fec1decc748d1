"""What a watchdog counts: looks without a word, and starts without an answer."""

from __future__ import annotations

from conure.engine.messages import Pong, StreamTokens
from conure.engine.watchdog import LATE, LONGEST, MOST_MISSED, MOST_STARTS, Watchdog

PONG = Pong(0)
WORK = StreamTokens(1, (), 0.16)


def alive() -> Watchdog:
    watchdog = Watchdog()
    watchdog.begin()
    watchdog.heard([PONG])
    return watchdog


def test_nobody_relies_on_an_engine_before_its_first_word() -> None:
    watchdog = Watchdog()
    assert not watchdog.answers
    watchdog.begin()
    assert not watchdog.answers
    watchdog.heard([PONG])
    assert watchdog.answers
    watchdog.begin()
    assert not watchdog.answers


def test_silence_is_counted_in_looks() -> None:
    watchdog = alive()
    for look in range(1, MOST_MISSED):
        assert not watchdog.look()
        assert watchdog.answers is (look < LATE)
    assert watchdog.look()


def test_any_word_is_progress() -> None:
    watchdog = alive()
    for _ in range(10 * MOST_MISSED):
        assert not watchdog.look()
        watchdog.heard([WORK])
    for _ in range(MOST_MISSED - 1):
        assert not watchdog.look()
    watchdog.heard([WORK])
    assert watchdog.answers
    assert not watchdog.look()


def test_a_new_engine_is_not_held_to_what_the_last_one_missed() -> None:
    watchdog = alive()
    for _ in range(MOST_MISSED):
        watchdog.look()
    watchdog.begin()
    for _ in range(MOST_MISSED - 1):
        assert not watchdog.look()
    assert watchdog.look()


def test_a_crash_an_hour_goes_on_for_ever() -> None:
    watchdog = alive()
    for _ in range(1000):
        assert watchdog.may_start
        watchdog.begin()
        watchdog.heard([PONG])
        watchdog.heard([WORK])
        assert watchdog.pause == 0


def test_starts_without_an_answer_have_an_end() -> None:
    watchdog = alive()
    for _ in range(MOST_STARTS):
        assert watchdog.may_start
        watchdog.begin()
    assert not watchdog.may_start


def test_engines_that_answer_and_do_nothing_are_started_less_and_less_often() -> None:
    watchdog = alive()
    pauses = []
    for _ in range(10):
        watchdog.begin()
        watchdog.heard([PONG])
        assert watchdog.may_start
        pauses.append(watchdog.pause)
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST
    watchdog.heard([WORK])
    assert watchdog.pause == 0
