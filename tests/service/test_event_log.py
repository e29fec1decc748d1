"""Events keep their order and numbers; replaced events take no space."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from conure.service.event_log import MAX_UNREAD, REPLAYABLE, EventLog
from conure.service.events import Event, Finished, Lag, Marker, Partial, SpeechStarted
from tests.service.fake_engine import tokens
from tests.waiting import PATIENCE

ME, OTHER = 1, 2


def partial(text: str, letters: str = "", utterance: int = 1) -> Partial:
    return Partial(utterance, "", text, tokens(letters, 0.0), 1.0)


def log_of(*events: Event) -> EventLog:
    log = EventLog()
    log.assign_reader(ME)
    for event in events:
        log.add(event)
    return log


def taken(log: EventLog, after: int = 0) -> list[tuple[int, Event]]:
    return asyncio.run(asyncio.wait_for(log.read_after(after, ME), PATIENCE))


def test_a_partial_replaces_the_one_before_and_keeps_its_tokens() -> None:
    log = log_of(SpeechStarted(1, 0.0), partial("a", "a"), Lag(0.1), partial("a b", "b"), Lag(0.2))
    (_, first), (_, second), (_, third) = taken(log)
    assert first == SpeechStarted(1, 0.0)
    assert second == replace_tokens(partial("a b"), "ab")
    assert third == Lag(0.2)
    assert log.last_number == 5


def replace_tokens(event: Partial, letters: str) -> Partial:
    return Partial(
        event.utterance, event.stable, event.tail, tuple(map(flat, tokens(letters, 0.0))), event.processed_until
    )


def flat(token: object) -> object:
    return replace(token, start=0.0, end=0.08)  # type: ignore[type-var]


def test_other_events_between_partials_keep_both() -> None:
    events = [partial("a"), Marker(1), partial("b"), partial("c", utterance=2), Finished(1.0)]
    assert taken(log_of(*events)) == list(enumerate(events, 1))


def test_tokens_that_were_taken_do_not_come_again() -> None:
    log = log_of(partial("a", "a"))
    taken(log)
    log.add(partial("a b", "b"))
    ((number, event),) = taken(log, 1)
    assert number == 2
    assert isinstance(event, Partial)
    assert len(event.tokens) == 1
    assert [number for number, _ in taken(log)] == [2]  # who comes back needs the last one only


def test_events_are_there_again_until_there_are_too_many() -> None:
    log = log_of(*(Marker(number) for number in range(REPLAYABLE)))
    taken(log)
    assert log.can_replay_after(0)
    assert len(taken(log, 0)) == REPLAYABLE
    log.add(Marker(REPLAYABLE))
    assert not log.can_replay_after(0)
    assert log.can_replay_after(1)
    assert not log.can_replay_after(REPLAYABLE + 2)
    assert not log.can_replay_after(-1)


def test_only_required_events_fill_the_log() -> None:
    log = log_of()
    for _ in range(2 * MAX_UNREAD):
        log.add(partial("a"))
        log.add(Lag(0.1))
    assert log.unread_count == 2
    for number in range(MAX_UNREAD - 2):
        assert not log.is_full
        log.add(Marker(number))
    assert log.is_full
    taken(log)
    assert not log.is_full


def test_another_reader_turns_the_first_one_away() -> None:
    async def read() -> None:
        log = log_of()
        first = asyncio.create_task(log.read_after(0, ME))
        await asyncio.sleep(0)
        log.assign_reader(OTHER)
        assert await asyncio.wait_for(first, PATIENCE) == []
        log.add(Marker(1))
        assert await log.read_after(0, ME) == []
        assert await log.read_after(0, OTHER) == [(1, Marker(1))]

    asyncio.run(read())


@pytest.mark.parametrize(("events", "over"), [((), False), ((Marker(1),), False), ((Marker(1), Finished(0.0)), True)])
def test_it_knows_its_end(events: tuple[Event, ...], over: bool) -> None:
    assert log_of(*events).has_ended == over
