"""Lexical form of text: lower case without punctuation."""

from __future__ import annotations

import unicodedata

__all__ = ["lexical_form"]

SPOKEN_MARKS = "%‰°&@#*/\\_"
"""Characters of Unicode's category of punctuation that are spoken."""
FULL_WIDTH = str.maketrans(dict.fromkeys("。、！？；：，．「」『』（）《》〈〉【】・", " "))


def lexical_form(text: str) -> str:
    """Text in lower case without the marks at the edges of words; inner ones are kept ("3.5", "don't")."""
    words = (_stripped(word) for word in text.translate(FULL_WIDTH).lower().split())
    return " ".join(word for word in words if word)


def _stripped(word: str) -> str:
    begin, end = 0, len(word)
    while begin < end and _is_mark(word[begin]):
        begin += 1
    while end > begin and _is_mark(word[end - 1]):
        end -= 1
    return word[begin:end]


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter).startswith("P") and letter not in SPOKEN_MARKS
