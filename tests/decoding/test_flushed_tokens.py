"""Tokens of flushes are not emitted again by the row, and no others are left out."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from conure.decoding.emitted_token import EmittedToken
from conure.decoding.flushed_tokens import TOLERANCE, FlushedTokens, spoken_forms

PIECES = ("▁one", "▁two", "▁One", "▁", ".", ",", "<EOU>", "one")
ONE, TWO, CAPITAL, SPACE, STOP, COMMA, END, INNER = range(len(PIECES))


def tokens(*pairs: tuple[int, int]) -> list[EmittedToken]:
    return [EmittedToken(token, step, 1, 0.0, 1.0) for token, step in pairs]


def new(flushed: FlushedTokens, *pairs: tuple[int, int], flush: bool = False) -> list[tuple[int, int]]:
    return [(token.id, token.step) for token in flushed.remove_known(tokens(*pairs), flush)]


def test_flushed_tokens_are_left_out_even_if_they_are_late() -> None:
    flushed = FlushedTokens()
    assert new(flushed, (ONE, 10), (TWO, 12), flush=True) == [(ONE, 10), (TWO, 12)]
    assert new(flushed, (ONE, 10)) == []
    assert new(flushed, (TWO, 12 + TOLERANCE), (ONE, 19)) == [(ONE, 19)]


def test_a_flushed_token_matches_once() -> None:
    flushed = FlushedTokens()
    assert new(flushed, (ONE, 10), flush=True) == [(ONE, 10)]
    assert new(flushed, (ONE, 11), (ONE, 13)) == [(ONE, 13)]


def test_a_word_that_a_flush_misrecognised_is_emitted_and_so_is_the_next() -> None:
    flushed = FlushedTokens()
    new(flushed, (INNER, 10), flush=True)
    assert new(flushed, (TWO, 10), (INNER, 14)) == [(TWO, 10), (INNER, 14)]


def test_a_later_flush_emits_only_new_tokens() -> None:
    flushed = FlushedTokens()
    assert new(flushed, (ONE, 10), flush=True) == [(ONE, 10)]
    assert new(flushed, (ONE, 10), (TWO, 14), flush=True) == [(TWO, 14)]
    assert new(flushed, flush=True) == []
    assert new(flushed, (ONE, 11), (TWO, 14), (STOP, 15)) == [(STOP, 15)]


def test_case_and_marks_do_not_make_new_tokens() -> None:
    flushed = FlushedTokens(spoken_forms(PIECES))
    new(flushed, (CAPITAL, 10), (STOP, 11), (END, 12), flush=True)
    assert new(flushed, (ONE, 10), (COMMA, 11), (SPACE, 12), (TWO, 13)) == [(SPACE, 12), (TWO, 13)]


decoded = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=6)
"""(token, steps after the token before)"""


@given(st.lists(st.tuples(decoded, decoded), min_size=1, max_size=4))
def test_each_token_is_emitted_as_often_as_the_row_has_it(turns: list[tuple[list, list]]) -> None:
    """For any results of flushes, the tokens of the row are emitted, and none more often than in both together."""
    flushed, begin = FlushedTokens(), 0
    given_now: Counter[int] = Counter()
    row: Counter[int] = Counter()
    guessed: Counter[int] = Counter()
    for guess, chunk in turns:
        for part, flush, counter in ((guess, True, guessed), (chunk, False, row)):
            at, some = begin, []
            for token, ahead in part:
                at += ahead
                some.append((token, at))
            given_now += Counter(token for token, _ in new(flushed, *some, flush=flush))
            counter += Counter(token for token, _ in some)
        begin += 13
    assert given_now >= row
    assert given_now <= row + guessed
