"""Phrases are found independent of case and marks, and replaced with the marks around them."""

from __future__ import annotations

import pytest

from conure.text.phrases import find_phrase, replace_phrase
from conure.text.words import join_words
from conure.types import Word


def words_of(text: str) -> list[Word]:
    return [Word(part, float(at), at + 0.5, 0.9 - at / 10) for at, part in enumerate(text.split())]


@pytest.mark.parametrize(
    ("text", "phrase", "found"),
    [
        ("Well, hello there. Hello!", "hello", [(1, 2), (3, 4)]),
        ("Hello there. Hello, there", "HELLO there", [(0, 2), (2, 4)]),
        ("no no no", "no no", [(0, 2)]),
        ("Don’t go", "don't", [(0, 1)]),
        ("hello", "hello there", []),
        ("hello", " ", []),
        ("", "hello", []),
    ],
)
def test_occurrences_of_a_phrase(text: str, phrase: str, found: list[tuple[int, int]]) -> None:
    assert find_phrase(words_of(text), phrase) == found


@pytest.mark.parametrize(
    ("text", "phrase", "other", "gives"),
    [
        ("Buy “Nvidia,” now.", "nvidia", "NVDA", "Buy “NVDA,” now."),
        ("New York. new york", "new york", "New Amsterdam", "New Amsterdam. New Amsterdam"),
        ("New York, yes", "new york", "NYC", "NYC, yes"),
        ("one two", "two", "twenty two", "one twenty two"),
        ("um, yes", "um", "", "yes"),
        ("um", "um", "", ""),
        ("yes", "no", "yes", "yes"),
    ],
)
def test_a_phrase_is_replaced(text: str, phrase: str, other: str, gives: str) -> None:
    assert join_words(replace_phrase(words_of(text), phrase, other)) == gives


def test_times_and_confidence_of_a_replacement() -> None:
    as_many = replace_phrase(words_of("a new york b"), "new york", "Old York")
    assert [(word.start, word.end) for word in as_many] == [(0, 0.5), (1, 1.5), (2, 2.5), (3, 3.5)]
    (_, fewer, _) = replace_phrase(words_of("a new york b"), "new york", "NYC")
    assert (fewer.text, fewer.start, fewer.end, fewer.confidence) == ("NYC", 1, 2.5, 0.7)
