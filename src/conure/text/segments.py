"""Words to segments: sentences, or what lies between two long pauses.

A segment ends where a sentence ends. Where nobody wrote marks, it ends at a pause. Either way it ends at a very long
pause, and none lasts longer than a limit: then it is cut at a pause. Words without times are cut at marks
only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from conure.text.words import join_words
from conure.types import Segment, Word

__all__ = ["ends_sentence", "pause_between", "segments_from_words"]

SENTENCE_MARKS = ".?!。？！।؟۔"
CLOSING_MARKS = "\"'”’»)]}」』）】》"
PAUSE = 1.0
"""Seconds of silence that end a segment of a text without marks."""
LONG_PAUSE = 3.0
"""Seconds of silence that end a segment even in the middle of a sentence."""
LONGEST = 30.0
"""Seconds that a segment may last."""


def segments_from_words(words: Sequence[Word], *, longest: float = LONGEST) -> list[Segment]:
    """Cut the words into segments; every word is in exactly one, in order."""
    marked = any(_has_sentence_end(word.text) for word in words)
    pause = LONG_PAUSE if marked else PAUSE
    sentences = _cut_at_ends(words, pause)
    return [_segment(part) for sentence in sentences for part in _shorten(sentence, longest)]


def pause_between(before: Word, after: Word) -> float:
    """Seconds of silence between two words; 0 when a time is not known."""
    if before.end is None or after.start is None:
        return 0.0
    return max(0.0, after.start - before.end)


def ends_sentence(word: Word, following: Word | None) -> bool:
    """Whether a sentence ends after the word; "e.g. this" and "well... yes" go on, as a small letter tells."""
    if not _has_sentence_end(word.text):
        return False
    return following is None or not following.text[:1].islower()


def _has_sentence_end(text: str) -> bool:
    return text.rstrip(CLOSING_MARKS)[-1:] in tuple(SENTENCE_MARKS)


def _cut_at_ends(words: Sequence[Word], pause: float) -> Iterator[Sequence[Word]]:
    begin = 0
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else None
        if following is None or ends_sentence(word, following) or pause_between(word, following) > pause:
            yield words[begin : index + 1]
            begin = index + 1


def _shorten(words: Sequence[Word], longest: float) -> Iterator[Sequence[Word]]:
    """Parts of at most `longest` seconds, each cut at the longest pause of its second half."""
    begin = 0
    while (limit := _words_within(words, begin, longest)) < len(words):
        cut = max(range(begin + 1, limit + 1), key=lambda at: _worth(words, begin, at, longest))
        yield words[begin:cut]
        begin = cut
    yield words[begin:]


def _words_within(words: Sequence[Word], begin: int, longest: float) -> int:
    """The index after the last word that still ends in time; at least one word is taken."""
    start = words[begin].start
    if start is None:
        return len(words)
    index = begin + 1
    while index < len(words) and (words[index].end or 0.0) - start <= longest:
        index += 1
    return index


def _worth(words: Sequence[Word], begin: int, cut: int, longest: float) -> tuple[bool, float, int]:
    """How good it is to cut before this word: late enough, then a long pause, then as late as can be."""
    passed = (words[cut].start or 0.0) - (words[begin].start or 0.0)
    return passed >= longest / 2, round(pause_between(words[cut - 1], words[cut]), 1), cut


def _segment(words: Sequence[Word]) -> Segment:
    return Segment(text=join_words(words), start=words[0].start, end=words[-1].end, words=tuple(words))
