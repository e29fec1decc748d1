"""Limits of keys: never exceeded, and retry times are exact."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conure.errors import TooMany
from conure.service.access import Scope
from conure.service.limits import DAY, MINUTE, NO_LIMITS, QUARTER, Ledger, Limits

WAITS = st.lists(st.integers(0, 40), min_size=1, max_size=60)
"""Whole seconds between one event and the next, so that sums are exact."""


def began(
    ledger: Ledger, number: int, limits: Limits, now: float, scope: Scope = "files", key: str = "a"
) -> TooMany | None:
    try:
        ledger.begin((1, number), key, limits, scope, now)
    except TooMany as error:
        return error
    return None


def clock(waits: list[int]) -> Iterator[tuple[int, float]]:
    now = 1000.0
    for number, wait in enumerate(waits):
        now += wait
        yield number, now


@given(waits=WAITS, most=st.integers(1, 8))
def test_no_minute_has_more_requests_than_are_allowed(waits: list[int], most: int) -> None:
    ledger, limits, begun = Ledger(), Limits(requests_per_minute=most), []
    for number, now in clock(waits):
        in_minute = [then for then in begun if then > now - MINUTE]
        refused = began(ledger, number, limits, now)
        assert (refused is None) == (len(in_minute) < most)
        if refused is None:
            begun.append(now)
        else:
            assert in_minute[-most] + MINUTE == now + refused.retry_after


@given(waits=WAITS, most=st.integers(1, 5))
def test_retry_after_is_exact(waits: list[int], most: int) -> None:
    """Just before it is too early, and then it is not."""
    ledger, limits = Ledger(), Limits(requests_per_minute=most)
    for number, now in clock(waits):
        if refused := began(ledger, number, limits, now):
            assert refused.retry_after > 0
            assert began(ledger, -1, limits, now + refused.retry_after - 0.5)
            assert not began(ledger, number, limits, now + refused.retry_after)
            return


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=80), most=st.integers(1, 4))
def test_streams_at_once(steps: list[tuple[bool, int]], most: int) -> None:
    ledger, limits, opened = Ledger(), Limits(streams=most), set[int]()
    for begins, number in steps:
        if begins and number not in opened:
            refused = began(ledger, number, limits, 0.0, "live")
            assert (refused is None) == (len(opened) < most)
            opened |= set() if refused else {number}
        elif not begins:
            ledger.end((1, number))  # also one that is over
            opened.discard(number)


@given(
    heard=st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 4000)), min_size=1, max_size=40),
    minutes=st.integers(1, 300),
)
def test_audio_of_a_day(heard: list[tuple[int, int]], minutes: int) -> None:
    ledger, limits, spent, now = Ledger(), Limits(audio_minutes_per_day=minutes), [], 0.0
    for number, (wait, seconds) in enumerate(heard):
        now += wait
        refused = began(ledger, number, limits, now)
        within = sum(part for then, part in spent if then > now - DAY)
        surely = sum(part for then, part in spent if then > now - DAY - QUARTER)
        if refused is None:
            assert within < 60 * minutes
            spent.append((now, seconds))
            try:
                ledger.spend((1, number), seconds, now)
            except TooMany:
                assert surely + seconds >= 60 * minutes
            else:
                assert within + seconds < 60 * minutes
        else:
            assert surely >= 60 * minutes
            later = now + refused.retry_after
            ahead = copy.deepcopy(ledger)
            assert began(ahead, -1, limits, later - 1)
            assert not began(ahead, -2, limits, later)


def test_streams_of_a_process_that_died_are_given_back() -> None:
    ledger, limits = Ledger(), Limits(streams=2)
    for process in (1, 2):
        ledger.begin((process, 1), "a", limits, "live", 0.0)
    with pytest.raises(TooMany, match="2 streams at once, and 2 are open"):
        ledger.begin((2, 2), "a", limits, "live", 0.0)
    ledger.release_process(1)
    ledger.begin((2, 2), "a", limits, "live", 0.0)
    with pytest.raises(TooMany):
        ledger.begin((2, 3), "a", limits, "live", 0.0)


def test_keys_have_their_own() -> None:
    ledger, limits = Ledger(), Limits(streams=1, requests_per_minute=1, audio_minutes_per_day=1)
    for number, key in enumerate("abc"):
        assert not began(ledger, number, limits, 0.0, "live", key)
        with pytest.raises(TooMany):
            ledger.spend((1, number), 60.0, 0.0)


def test_recordings_are_no_streams() -> None:
    ledger, limits = Ledger(), Limits(streams=1)
    assert not any(began(ledger, number, limits, 0.0, "files") for number in range(5))
    assert not began(ledger, 9, limits, 0.0, "live")


def test_an_ended_usage_spends_nothing() -> None:
    ledger, limits = Ledger(), Limits(audio_minutes_per_day=1)
    assert not began(ledger, 1, limits, 0.0)
    ledger.end((1, 1))
    ledger.spend((1, 1), 1e6, 0.0)
    assert not began(ledger, 2, limits, 0.0)


def test_limits_may_change_while_streams_are_open() -> None:
    ledger = Ledger()
    assert not any(began(ledger, number, NO_LIMITS, 0.0, "live") for number in range(3))
    refused = began(ledger, 4, Limits(streams=2), 0.0, "live")
    assert refused is not None
    assert "3 are open" in refused.message


def test_accounts_do_not_grow() -> None:
    ledger = Ledger()
    for number in range(10_000):
        began(ledger, number, Limits(requests_per_minute=3, audio_minutes_per_day=1e9), 10.0 * number)
        ledger.spend((1, number), 1.0, 10.0 * number)
        ledger.end((1, number))
    account = ledger._accounts["a"]
    assert len(account.request_times) <= 3
    assert len(account.audio) <= DAY / QUARTER + 2
    assert not ledger._open


@given(
    asked=st.lists(
        st.tuples(st.sampled_from(["reserve", "spend", "end"]), st.integers(0, 5), st.integers(1, 60)), max_size=60
    )
)
def test_reservations_are_spent_first_and_given_back(asked: list[tuple[str, int, int]]) -> None:
    """Nothing is let in while spent and reserved audio is all there is; what is reserved is never refused."""
    ledger, limits = Ledger(), Limits(audio_minutes_per_day=1.0)
    spent, reserved = 0, dict[int, int]()
    for number in range(6):
        began(ledger, number, limits, 0.0)
    for what, number, seconds in asked:
        refused, taken = None, spent + sum(reserved.values())
        if number not in reserved and what != "reserve":
            continue
        try:
            if what == "reserve":
                ledger.reserve((1, number), seconds, 0.0)
            elif what == "spend":
                ledger.spend((1, number), seconds, 0.0)
            else:
                ledger.end((1, number))
        except TooMany as error:
            refused = error
        if what == "reserve":
            assert (refused is None) == (taken < 60)
            reserved[number] = reserved.get(number, 0) + (0 if refused else seconds)
        elif what == "spend":
            was_reserved = seconds <= reserved[number]
            spent, reserved[number] = spent + seconds, max(reserved[number] - seconds, 0)
            assert (refused is None) == (was_reserved or spent + sum(reserved.values()) < 60)
        else:
            del reserved[number]
            left = began(ledger, number, limits, 0.0)  # begins anew
            assert (left is None) == (spent + sum(reserved.values()) < 60)
            if left:
                return


def test_a_process_that_dies_gives_its_reservations_back() -> None:
    ledger, limits = Ledger(), Limits(audio_minutes_per_day=1.0)
    began(ledger, 1, limits, 0.0)
    ledger.reserve((1, 1), 300.0, 0.0)
    assert began(ledger, 2, limits, 0.0)
    ledger.release_process(1)
    assert not began(ledger, 3, limits, 0.0)
