"""The words of pieces that follow one another, joined so that every word is there once.

At a clean seam no word is shared. At a forced one both pieces heard the overlap: words of the left piece are taken up
to a crossing, words of the right piece from there on. The crossing is where both agree, in the longest run of equal
words at compatible times; where they agree on nothing it is the middle of the overlap, for a piece hears its own edge
worst. A word that only one side heard is kept, unless it touches that side's edge, where it may be half a word.

Where the left piece must be settled before the right one is heard, `find_seam` chooses the crossing by what the left
one heard, and the right one is joined to that.

Knows nothing of audio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["ForcedSeam", "OverlapMerger", "Seam", "find_seam", "normalized_letters"]

TOLERANCE = 0.5
"""Seconds by which two pieces may differ about the time of one word."""
EDGE = 0.2
"""Seconds at the edge of a piece in which any word may be half a word."""
REACH = 0.8
"""The same for a piece's last word: decoders that know no durations end words long before their sound ends."""
SPARE = 1.0
"""Seconds at the end of a piece in which no seam is sought, for it is heard worst."""
BEFORE_WORD = 0.25
"""Seconds by which a seam comes before the word after it, where there is room."""


class Timed(Protocol):
    """A word, or what has the place of one."""

    @property
    def text(self) -> str: ...

    @property
    def start(self) -> float | None: ...

    @property
    def end(self) -> float | None: ...


Said = TypeVar("Said", bound=Timed)


class OverlapMerger(Generic[Said]):
    """The pieces of one recording, one after the other. Holds the words of one piece."""

    def __init__(self) -> None:
        self._held: list[Said] = []

    def add_clip(self, words: Sequence[Said], start: float = 0.0, overlap: float = 0.0) -> list[Said]:
        """The words of a piece in times of the whole recording -> those that are settled now.

        `start` is the piece's own, and `overlap` the seconds at its beginning that the piece before it heard, too.
        """
        settled, self._held = self._held, list(words)
        if overlap:
            settled, self._held = _join_overlap(settled, self._held, start, start + overlap)
        return settled

    def finish(self) -> list[Said]:
        """What is left."""
        return self.add_clip(())


@dataclass(frozen=True)
class Seam(Generic[Said]):
    """Where a piece is over whose end the next piece hears, too."""

    at: float
    until: float
    """Where the left piece's audio ends."""
    before: tuple[Said, ...]
    """The left piece's words that are settled."""
    after: tuple[Said, ...]
    """Words that the left piece heard beyond."""

    def merge(self, words: Sequence[Said]) -> list[Said]:
        """The words of the right piece, which began some time before the seam -> those from the seam on."""
        settled = self.before[-3:]
        coming = [w for w in words if _middle(w) >= self.at and not any(_is_same_sound(w, one) for one in settled)]
        left, right = _join_overlap(list(self.after), coming, self.at, self.until)
        return left + right


@dataclass(frozen=True)
class ForcedSeam(Generic[Said]):
    """Where a piece was cut off and told, whatever was being said. The next piece hears some of its end again."""

    at: float
    before: tuple[Said, ...]
    """The left piece's words."""

    def merge(self, words: Sequence[Said]) -> list[Said]:
        """The words of the right piece, which began some time before the border -> those that the left one did not
        tell. A word across the border may have been told in part; one that begins after it never was."""
        last = self.before[-2:]
        return [
            word
            for word in words
            if _starts(word) >= self.at
            or (_ends(word) > self.at and not any(_is_same_sound(word, other) for other in last))
        ]


def find_seam(words: Sequence[Said], first: float, last: float) -> Seam[Said]:
    """Where to end a piece that was heard from `first` to `last`: in its second half, where there is most room
    between two words. The next piece should begin a second or more before."""
    begin, end = (first + last) / 2, last - min(SPARE, (last - first) / 4)
    rooms = zip([first, *map(_ends, words)], [*map(_starts, words), last], strict=True)
    low, high = max(((max(low, begin), min(high, end)) for low, high in rooms), key=lambda room: room[1] - room[0])
    at = high - min((high - low) / 2, BEFORE_WORD) if high > low else end
    before = tuple(word for word in words if _middle(word) < at)
    return Seam(at, last, before, tuple(words[len(before) :]))


def _join_overlap(left: list[Said], right: list[Said], begin: float, end: float) -> tuple[list[Said], list[Said]]:
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


def _longest_run(left: list[Said], right: list[Said], begin: float, end: float) -> list[tuple[int, int]]:
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


def _run_from(left: list[Said], right: list[Said], i: int, j: int) -> tuple[list[tuple[int, int]], float]:
    run: list[tuple[int, int]] = []
    score = 0.0
    while i < len(left) and j < len(right) and normalized_letters(left[i].text) == normalized_letters(right[j].text):
        apart = abs(_middle(left[i]) - _middle(right[j]))
        if apart >= TOLERANCE:
            break
        run.append((i, j))
        score += 1 - apart / TOLERANCE  # so that of "two two two" each meets itself and not its neighbour
        i, j = i + 1, j + 1
    return run, score


def _shared(left: list[Said], right: list[Said]) -> int:
    """Without times: how many words at the left's end are those at the right's beginning."""
    ends, begins = [normalized_letters(word.text) for word in left], [normalized_letters(word.text) for word in right]
    longest = min(len(left), len(right))
    return next((count for count in range(longest, 0, -1) if ends[-count:] == begins[:count]), 0)


def _is_same_sound(word: Timed, other: Timed) -> bool:
    """Whether two words are what two pieces made of the same stretch of sound."""
    shared = min(_ends(word), _ends(other)) - max(_starts(word), _starts(other))
    shorter = min(_ends(word) - _starts(word), _ends(other) - _starts(other))
    if shared >= 0 and shared >= shorter / 2:
        return True
    return (
        normalized_letters(word.text) == normalized_letters(other.text)
        and abs(_middle(word) - _middle(other)) < TOLERANCE
    )


def normalized_letters(text: str) -> str:
    """A word without case and marks, on which two that heard it need not agree; marks alone stay."""
    letters = "".join(character for character in text.casefold() if character.isalnum())
    return letters or text


def _starts(word: Timed) -> float:
    return word.start or 0.0


def _ends(word: Timed) -> float:
    return word.end or 0.0


def _middle(word: Timed) -> float:
    return (_starts(word) + _ends(word)) / 2
