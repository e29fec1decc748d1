"""Groups words into segments: sentences, or the words between two long pauses.

A segment ends with a sentence; in a text without punctuation, at a pause. It also ends at a very long pause, and its
length is limited: longer ones are split at a pause. Words without times are split at punctuation only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from conure.text.words import join_words
from conure.types import Segment, Word

__all__ = ["ends_sentence", "pause_between", "segments_from_words"]

SENTENCE_MARKS = ".?!。？！।؟۔"
CLOSING_MARKS = "\"'”’»)]}」』）】》"
PAUSE = 1.0
"""Seconds of silence that end a segment of a text without punctuation."""
LONG_PAUSE = 3.0
"""Seconds of silence that end a segment even in the middle of a sentence."""
MAX_SECONDS = 30.0
"""Length of a segment."""


def segments_from_words(words: Sequence[Word], *, max_seconds: float = MAX_SECONDS) -> list[Segment]:
    """Splits the words into segments; every word is in exactly one, in order."""
    has_marks = any(_has_sentence_end(word.text) for word in words)
    pause = LONG_PAUSE if has_marks else PAUSE
    sentences = _split_at_ends(words, pause)
    return [_segment(part) for sentence in sentences for part in _shorten(sentence, max_seconds)]


def pause_between(before: Word, after: Word) -> float:
    """Seconds of silence between two words; 0 if a time is unknown."""
    if before.end is None or after.start is None:
        return 0.0
    return max(0.0, after.start - before.end)


def ends_sentence(word: Word, following: Word | None) -> bool:
    """Whether a sentence ends after the word; not if a lower-case letter follows ("e.g. this", "well... yes")."""
    if not _has_sentence_end(word.text):
        return False
    return following is None or not following.text[:1].islower()


def _has_sentence_end(text: str) -> bool:
    return text.rstrip(CLOSING_MARKS)[-1:] in tuple(SENTENCE_MARKS)


def _split_at_ends(words: Sequence[Word], pause: float) -> Iterator[Sequence[Word]]:
    begin = 0
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else None
        if following is None or ends_sentence(word, following) or pause_between(word, following) > pause:
            yield words[begin : index + 1]
            begin = index + 1


def _shorten(words: Sequence[Word], max_seconds: float) -> Iterator[Sequence[Word]]:
    """Parts of at most `max_seconds`, each split at the longest pause of its second half."""
    begin = 0
    while (limit := _words_within(words, begin, max_seconds)) < len(words):
        split = max(range(begin + 1, limit + 1), key=lambda at: _split_quality(words, begin, at, max_seconds))
        yield words[begin:split]
        begin = split
    yield words[begin:]


def _words_within(words: Sequence[Word], begin: int, max_seconds: float) -> int:
    """The index after the last word that ends within the limit; at least one word is included."""
    start = words[begin].start
    if start is None:
        return len(words)
    index = begin + 1
    while index < len(words) and (words[index].end or 0.0) - start <= max_seconds:
        index += 1
    return index


def _split_quality(words: Sequence[Word], begin: int, split: int, max_seconds: float) -> tuple[bool, float, int]:
    """Sort key of a split before this word: in the second half, then the longest pause, then as late as possible."""
    passed = (words[split].start or 0.0) - (words[begin].start or 0.0)
    return passed >= max_seconds / 2, round(pause_between(words[split - 1], words[split]), 1), split


def _segment(words: Sequence[Word]) -> Segment:
    return Segment(text=join_words(words), start=words[0].start, end=words[-1].end, words=tuple(words))
