"""Segments to subtitles: SubRip (srt) and WebVTT.

A cue holds at most two lines of 42 columns and lasts at most 7 seconds; a Chinese, Japanese or Korean character takes
two columns. Cues never overlap and never go back in time. Where cues begin and end is found by dynamic programming over
the whole text: the cheapest way to cut it, where a cut costs least after a sentence and most in the middle of a clause.

Text without blanks is cut between characters, and the time of a word is then shared out evenly among them.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise

from conure.errors import BadOption
from conure.text.words import FULL_WIDTH_MARKS
from conure.types import Segment, Word

__all__ = ["Cue", "cues_from_segments", "render_srt", "render_vtt"]

COLUMNS = 42
LONGEST = 7.0
SHORTEST = 1.0
"""Seconds that a cue stays on the screen if the next one leaves it the time."""
PAUSE = 1.5
"""Seconds of silence that no cue spans."""
CLAUSE_MARKS = ",;:—–،、，；："
OPENING_MARKS = "([{«“‘「『（【《〈¿¡"


@dataclass(frozen=True, slots=True)
class Cue:
    """What stands on the screen for a while; times in whole milliseconds, so that rounding cannot make cues overlap."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Unit:
    """What no line break divides: a word, or a character of a text without blanks."""

    text: str
    start: float
    end: float
    blank: bool
    """Whether a blank stands before it, when it does not begin a line."""
    ends_segment: bool

    @property
    def columns(self) -> int:
        return columns(self.text) + self.blank


def render_srt(segments: Sequence[Segment]) -> str:
    """SubRip text."""
    cues = cues_from_segments(segments)
    blocks = [
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n"
        + "\n".join(line.replace("-->", "→") for line in cue.lines)
        for number, cue in enumerate(cues, start=1)
    ]
    return "".join(f"{block}\n\n" for block in blocks)


def render_vtt(segments: Sequence[Segment]) -> str:
    """WebVTT text; hours are always written."""
    cues = cues_from_segments(segments)
    blocks = [
        f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n" + "\n".join(map(_escape, cue.lines))
        for cue in cues
    ]
    return "WEBVTT\n\n" + "".join(f"{block}\n\n" for block in blocks)


def cues_from_segments(segments: Sequence[Segment]) -> list[Cue]:
    """Cut segments into cues; raises BadOption where words have no times."""
    units = list(_units(segments))
    groups = [units[begin:end] for begin, end in pairwise(_cuts(units))]
    cues: list[Cue] = []
    for index, group in enumerate(groups):
        following = groups[index + 1][0].start if index + 1 < len(groups) else None
        start, end = _span(group, following, cues[-1].end_ms if cues else 0)
        cues.append(Cue(start, end, _lines(group)))
    return cues


def columns(text: str) -> int:
    """How wide the text is: wide characters count twice, combining ones not at all."""
    return sum(_columns_of(character) for character in text)


@cache
def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


# Words to units


def _units(segments: Sequence[Segment]) -> Iterator[_Unit]:
    before = ""
    for segment in segments:
        if segment.text and not segment.words:
            raise _no_times(segment.text)
        for word in segment.words:
            blank = before[-1:] not in tuple(FULL_WIDTH_MARKS)
            yield from _units_of_word(word, blank=blank, is_last=word is segment.words[-1])
            before = word.text


def _units_of_word(word: Word, *, blank: bool, is_last: bool) -> Iterator[_Unit]:
    if word.start is None or word.end is None:
        raise _no_times(word.text)
    pieces = _divide(word.text)
    shares = [0, *accumulate(len(piece) for piece in pieces)]
    seconds_each = (word.end - word.start) / max(1, shares[-1])
    for index, piece in enumerate(pieces):
        start, end = (word.start + share * seconds_each for share in shares[index : index + 2])
        yield _Unit(piece, start, end, blank and index == 0, is_last and index == len(pieces) - 1)


def _no_times(text: str) -> BadOption:
    return BadOption(f"subtitles need times, and {text!r} has none", hint="this model gives no times: use txt or json")


def _divide(text: str) -> list[str]:
    """Characters, if the text is of a script without blanks or too long for a line; else the text whole."""
    text = "".join(text.split())
    wide = any(_columns_of(character) == 2 for character in text)
    if not wide and columns(text) <= COLUMNS:
        return [text] if text else []
    pieces: list[str] = []
    for character in text:
        if pieces and _clings(pieces[-1], character, wide):
            pieces[-1] += character
        else:
            pieces.append(character)
    return pieces


def _clings(piece: str, character: str, wide: bool) -> bool:
    """Whether no line may break between the two: before a closing mark, after an opening one, inside a foreign word."""
    if unicodedata.category(character).startswith("M"):
        return True
    if columns(piece) >= COLUMNS - 2:
        return False
    if piece[-1] in OPENING_MARKS:
        return True
    if unicodedata.category(character) in ("Po", "Pe", "Pf") or character in "ーゃゅょっャュョッ々":
        return True
    return wide and _columns_of(piece[-1]) == 1 and _columns_of(character) == 1


# Units to cues


def _cuts(units: Sequence[_Unit]) -> list[int]:
    """The indices between which cues lie, 0 and the number of units included: the cheapest of all ways."""
    edges = list(accumulate((unit.columns for unit in units), initial=0))
    ends_before = list(accumulate((unit.ends_segment for unit in units), initial=0))
    cheapest = [0.0] + [float("inf")] * len(units)
    came_from = [0] * (len(units) + 1)
    for begin in range(len(units)):
        for end in _possible_ends(units, edges, begin):
            inner_ends = ends_before[end - 1] - ends_before[begin]
            cost = cheapest[begin] + _cost(units, begin, end, inner_ends)
            if cost < cheapest[end]:
                cheapest[end], came_from[end] = cost, begin
    cuts = [len(units)]
    while cuts[-1] > 0:
        cuts.append(came_from[cuts[-1]])
    return cuts[::-1]


def _possible_ends(units: Sequence[_Unit], edges: Sequence[int], begin: int) -> Iterator[int]:
    """Every end with which the cue fits two lines, lasts not too long and spans no pause; one unit always may."""
    line_break = _last_in_line(units, edges, begin)
    for end in range(begin + 1, len(units) + 1):
        last = units[end - 1]
        if end > begin + 1:
            too_long = last.end - units[begin].start > LONGEST
            pause = last.start - units[end - 2].end > PAUSE
            too_wide = end > line_break and _width(units, edges, line_break, end) > COLUMNS
            if too_long or pause or too_wide:
                return
        yield end


def _last_in_line(units: Sequence[_Unit], edges: Sequence[int], begin: int) -> int:
    """The end of the longest line that begins here."""
    room = edges[begin] + units[begin].blank + COLUMNS
    return max(begin + 1, bisect_right(edges, room) - 1)


def _width(units: Sequence[_Unit], edges: Sequence[int], begin: int, end: int) -> int:
    return edges[end] - edges[begin] - units[begin].blank


def _cost(units: Sequence[_Unit], begin: int, end: int, inner_ends: int) -> float:
    """What a cue costs: one for being there, more for ending badly, for flashing by, for holding two sentences."""
    seconds = units[end - 1].end - units[begin].start
    if end < len(units):  # silence after it may be used to show it longer
        seconds = max(seconds, min(SHORTEST, units[end].start - units[begin].start))
    return 1.0 + _cut_cost(units, end) + 2.0 * max(0.0, SHORTEST - seconds) + 1.2 * inner_ends


def _cut_cost(units: Sequence[_Unit], end: int) -> float:
    last = units[end - 1]
    if last.ends_segment:
        return 0.0
    if last.text[-1] in CLAUSE_MARKS or units[end].start - last.end > PAUSE / 3:
        return 0.5
    return 1.5


def _span(group: Sequence[_Unit], following: float | None, previous_end_ms: int) -> tuple[int, int]:
    """Milliseconds: after the cue before, before the cue after, as long as it can be read, at least one."""
    start = max(previous_end_ms, round(group[0].start * 1000))
    end = max(round(group[-1].end * 1000), start + round(SHORTEST * 1000))
    end = min(end, start + round(LONGEST * 1000))
    if following is not None:
        end = min(end, round(following * 1000))
    return start, max(end, start + 1)


def _lines(group: Sequence[_Unit]) -> tuple[str, ...]:
    """One line if it fits, else two of like width, rather after a clause."""
    whole = _join(group)
    if columns(whole) <= COLUMNS or len(group) == 1:
        return (whole,)

    def ugliness(cut: int) -> float:
        first, second = columns(_join(group[:cut])), columns(_join(group[cut:]))
        overflow = max(0, first - COLUMNS) + max(0, second - COLUMNS)
        return 100.0 * overflow + abs(first - second) - 10.0 * (group[cut - 1].text[-1] in CLAUSE_MARKS)

    best = min(range(1, len(group)), key=ugliness)
    return (_join(group[:best]), _join(group[best:]))


def _join(group: Sequence[_Unit]) -> str:
    return "".join(f" {unit.text}" if unit.blank and index else unit.text for index, unit in enumerate(group))


# Text


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
