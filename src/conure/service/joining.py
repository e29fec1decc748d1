"""The words of pieces that follow one another, joined so that every word is there once.

At a clean seam no word is shared. At a forced one both pieces heard the overlap: words of the left piece are taken up
to a crossing, words of the right piece from there on. The crossing is where both agree, in the longest run of equal
words at compatible times; where they agree on nothing it is the middle of the overlap, for a piece hears its own edge
worst. A word that only one side heard is kept, unless it touches that side's edge, where it may be half a word.

Knows nothing of audio.
"""

from __future__ import annotations

from collections.abc import Sequence

from conure.types import Word

__all__ = ["Joiner"]

TOLERANCE = 0.5
"""Seconds by which two pieces may differ about the time of one word."""
EDGE = 0.2
"""Seconds at the edge of a piece in which any word may be half a word."""
REACH = 0.8
"""The same for a piece's last word: decoders that know no durations end words long before their sound ends."""


class Joiner:
    """The pieces of one recording, one after the other. Holds the words of one piece."""

    def __init__(self) -> None:
        self._held: list[Word] = []

    def push(self, words: Sequence[Word], start: float = 0.0, overlap: float = 0.0) -> list[Word]:
        """The words of a piece in times of the whole recording -> those that are settled now.

        `start` is the piece's own, and `overlap` the seconds at its beginning that the piece before it heard, too.
        """
        settled, self._held = self._held, list(words)
        if overlap:
            settled, self._held = _join_overlap(settled, self._held, start, start + overlap)
        return settled

    def finish(self) -> list[Word]:
        """What is left."""
        return self.push(())


def _join_overlap(left: list[Word], right: list[Word], begin: float, end: float) -> tuple[list[Word], list[Word]]:
    """What is settled and what is still open. Both heard all from `begin` to `end`."""
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
    settled, coming = left[:last], right[first:]
    only_left = [word for word in left[last:] if end - _ends(word) >= EDGE]
    only_right = [word for word in right[:first] if _starts(word) - begin >= EDGE]
    if only_left and only_left[-1] is left[-1] and end - _starts(left[-1]) < REACH:
        only_left.pop()
    for word in only_left + only_right:
        if not any(_is_same_sound(word, other) for other in settled + coming):
            side = coming if coming and _starts(word) >= _starts(coming[0]) else settled
            side.append(word)
            side.sort(key=_starts)
    return settled, coming


def _longest_run(left: list[Word], right: list[Word], begin: float, end: float) -> list[tuple[int, int]]:
    """Pairs (i, j) of equal words that follow one another on both sides, the longest and best timed such run."""
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


def _run_from(left: list[Word], right: list[Word], i: int, j: int) -> tuple[list[tuple[int, int]], float]:
    run: list[tuple[int, int]] = []
    score = 0.0
    while i < len(left) and j < len(right) and _plain(left[i]) == _plain(right[j]):
        apart = abs(_middle(left[i]) - _middle(right[j]))
        if apart >= TOLERANCE:
            break
        run.append((i, j))
        score += 1 - apart / TOLERANCE  # so that of "two two two" each meets itself and not its neighbour
        i, j = i + 1, j + 1
    return run, score


def _shared(left: list[Word], right: list[Word]) -> int:
    """Without times: how many words at the left's end are those at the right's beginning."""
    ends, begins = [_plain(word) for word in left], [_plain(word) for word in right]
    longest = min(len(left), len(right))
    return next((count for count in range(longest, 0, -1) if ends[-count:] == begins[:count]), 0)


def _is_same_sound(word: Word, other: Word) -> bool:
    """Whether two words are what two pieces made of the same stretch of sound."""
    shared = min(_ends(word), _ends(other)) - max(_starts(word), _starts(other))
    shorter = min(_ends(word) - _starts(word), _ends(other) - _starts(other))
    if shared >= 0 and shared >= shorter / 2:
        return True
    return _plain(word) == _plain(other) and abs(_middle(word) - _middle(other)) < TOLERANCE


def _plain(word: Word) -> str:
    """The word without case and marks, as both sides need not agree on them."""
    letters = "".join(character for character in word.text.casefold() if character.isalnum())
    return letters or word.text


def _starts(word: Word) -> float:
    return word.start or 0.0


def _ends(word: Word) -> float:
    return word.end or 0.0


def _middle(word: Word) -> float:
    return (_starts(word) + _ends(word)) / 2
