"""Merges the words of consecutive clips so that every word occurs once.

At a clean seam the clips have no words in common. At a forced one both clips contain the overlap: words of the left
clip are used up to a crossing, words of the right clip from there on. The crossing lies in the longest run of equal
words at compatible times; without equal words it is the middle of the overlap, because recognition is worst at the edge
of a clip. A word that only one clip has is kept, unless it touches that clip's edge, where it may be half a word.

If the left clip must be final before the right one is transcribed, `find_seam` chooses the crossing by the words of the
left one, and the right one is merged with them.

Independent of audio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["ForcedSeam", "OverlapMerger", "Seam", "find_seam", "normalized_letters"]

TOLERANCE = 0.5
"""Seconds by which the times of one word may differ between two clips."""
EDGE = 0.2
"""Seconds at the edge of a clip in which any word may be half a word."""
LAST_WORD_EDGE = 0.8
"""The same for a clip's last word: decoders without durations end words long before their sound ends."""
SEAM_MARGIN = 1.0
"""Seconds at the end of a clip in which no seam is placed, because recognition is worst there."""
BEFORE_WORD = 0.25
"""Seconds by which a seam precedes the next word, if there is space."""


class Timed(Protocol):
    """A word, or anything with its text and times."""

    @property
    def text(self) -> str: ...

    @property
    def start(self) -> float | None: ...

    @property
    def end(self) -> float | None: ...


WordT = TypeVar("WordT", bound=Timed)


class OverlapMerger(Generic[WordT]):
    """Merges the clips of one recording in order. Holds the words of one clip."""

    def __init__(self) -> None:
        self._held: list[WordT] = []

    def add_clip(self, words: Sequence[WordT], start: float = 0.0, overlap: float = 0.0) -> list[WordT]:
        """The words of a clip, with times of the recording -> the words that are final now.

        `start` is the start of the clip, `overlap` the seconds at its beginning that the previous clip contains, too.
        """
        settled, self._held = self._held, list(words)
        if overlap:
            settled, self._held = _merge_overlap(settled, self._held, start, start + overlap)
        return settled

    def finish(self) -> list[WordT]:
        """The remaining words."""
        return self.add_clip(())


@dataclass(frozen=True)
class Seam(Generic[WordT]):
    """A seam between two overlapping clips that was chosen by the words of the left one."""

    at: float
    until: float
    """End of the left clip's audio."""
    before: tuple[WordT, ...]
    """The final words of the left clip."""
    after: tuple[WordT, ...]
    """Words of the left clip after the seam."""

    def merge(self, words: Sequence[WordT]) -> list[WordT]:
        """The words of the right clip, which begins before the seam -> the words from the seam on."""
        last = self.before[-3:]
        right_words = [w for w in words if _middle(w) >= self.at and not any(_is_same_sound(w, old) for old in last)]
        left, right = _merge_overlap(list(self.after), right_words, self.at, self.until)
        return left + right


@dataclass(frozen=True)
class ForcedSeam(Generic[WordT]):
    """A seam at which the left clip was finalized, possibly within a word. The right clip contains its end again."""

    at: float
    before: tuple[WordT, ...]
    """The words of the left clip."""

    def merge(self, words: Sequence[WordT]) -> list[WordT]:
        """The words of the right clip, which begins before the seam -> the words that the left clip does not have.

        Words across the seam may be partly in the left clip; words that begin after it are not.
        """
        last = self.before[-2:]
        return [
            word
            for word in words
            if _starts(word) >= self.at
            or (_ends(word) > self.at and not any(_is_same_sound(word, other) for other in last))
        ]


def find_seam(words: Sequence[WordT], first: float, last: float) -> Seam[WordT]:
    """The seam at which to end a clip from `first` to `last`: in its second half, in the longest gap between two
    words. The next clip should begin a second or more before it."""
    begin, end = (first + last) / 2, last - min(SEAM_MARGIN, (last - first) / 4)
    gaps = zip([first, *map(_ends, words)], [*map(_starts, words), last], strict=True)
    low, high = max(((max(low, begin), min(high, end)) for low, high in gaps), key=lambda gap: gap[1] - gap[0])
    at = high - min((high - low) / 2, BEFORE_WORD) if high > low else end
    before = tuple(word for word in words if _middle(word) < at)
    return Seam(at, last, before, tuple(words[len(before) :]))


def _merge_overlap(left: list[WordT], right: list[WordT], begin: float, end: float) -> tuple[list[WordT], list[WordT]]:
    """The final words and the open ones. Both clips contain the audio from `begin` to `end`."""
    if any(word.start is None or word.end is None for word in (*left, *right)):
        return left, right[_shared(left, right) :]
    middle = (begin + end) / 2
    run = _longest_run(left, right, begin, end)
    if run:
        last, first = min(run, key=lambda pair: abs(_middle(left[pair[0]]) - middle))
        last, first = last + 1, first + 1
    else:
        last = sum(_middle(word) < middle for word in left)
        first = sum(_middle(word) < middle for word in right)
        if last and first < len(right) and _is_same_sound(left[last - 1], right[first]):
            first += 1
    settled, remaining = left[:last], right[first:]
    only_left = [word for word in left[last:] if end - _ends(word) >= EDGE]
    only_right = [word for word in right[:first] if _starts(word) - begin >= EDGE]
    if only_left and only_left[-1] is left[-1] and end - _starts(left[-1]) < LAST_WORD_EDGE:
        only_left.pop()
    for word in only_left + only_right:
        if not any(_is_same_sound(word, other) for other in settled + remaining):
            side = remaining if remaining and _starts(word) >= _starts(remaining[0]) else settled
            side.append(word)
            side.sort(key=_starts)
    return settled, remaining


def _longest_run(left: list[WordT], right: list[WordT], begin: float, end: float) -> list[tuple[int, int]]:
    """The longest run of consecutive equal words with the best agreement in time, as pairs (i, j)."""
    best: list[tuple[int, int]] = []
    best_score = 0.0
    first = next((i for i, word in enumerate(left) if _ends(word) > begin - TOLERANCE), len(left))
    for i in range(first, len(left)):
        for j in range(len(right)):
            if _starts(right[j]) > end + TOLERANCE:
                break
            run, score = _run_from(left, right, i, j)
            if score > best_score:
                best, best_score = run, score
    return best


def _run_from(left: list[WordT], right: list[WordT], i: int, j: int) -> tuple[list[tuple[int, int]], float]:
    run: list[tuple[int, int]] = []
    score = 0.0
    while i < len(left) and j < len(right) and normalized_letters(left[i].text) == normalized_letters(right[j].text):
        distance = abs(_middle(left[i]) - _middle(right[j]))
        if distance >= TOLERANCE:
            break
        run.append((i, j))
        score += 1 - distance / TOLERANCE  # matches each "two" of "two two two" with itself
        i, j = i + 1, j + 1
    return run, score


def _shared(left: list[WordT], right: list[WordT]) -> int:
    """For words without times: number of words at the end of `left` that equal those at the beginning of `right`."""
    ends, begins = [normalized_letters(word.text) for word in left], [normalized_letters(word.text) for word in right]
    max_count = min(len(left), len(right))
    return next((count for count in range(max_count, 0, -1) if ends[-count:] == begins[:count]), 0)


def _is_same_sound(word: Timed, other: Timed) -> bool:
    """Whether two words of different clips were recognised from the same audio."""
    shared = min(_ends(word), _ends(other)) - max(_starts(word), _starts(other))
    shorter = min(_ends(word) - _starts(word), _ends(other) - _starts(other))
    if shared >= 0 and shared >= shorter / 2:
        return True
    return (
        normalized_letters(word.text) == normalized_letters(other.text)
        and abs(_middle(word) - _middle(other)) < TOLERANCE
    )


def normalized_letters(text: str) -> str:
    """A word without case and punctuation, for comparisons; text without letters is unchanged."""
    letters = "".join(character for character in text.casefold() if character.isalnum())
    return letters or text


def _starts(word: Timed) -> float:
    return word.start or 0.0


def _ends(word: Timed) -> float:
    return word.end or 0.0


def _middle(word: Timed) -> float:
    return (_starts(word) + _ends(word)) / 2
