"""Renders segments as subtitles: SubRip (srt) and WebVTT.

A cue has at most two lines of 42 columns and lasts at most 7 seconds; a Chinese, Japanese or Korean character takes two
columns. Cues never overlap and never go back in time. The text is split into cues by dynamic programming over the whole
text, with costs that are lowest for a split after a sentence and highest within a clause.

Text without blanks is split between characters, which share the time of their word equally.
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
MAX_SECONDS = 7.0
MIN_SECONDS = 1.0
"""Seconds that a cue stays on the screen if the next one allows it."""
PAUSE = 1.5
"""Silence in seconds that always separates two cues."""
CLAUSE_MARKS = ",;:—–،、，；："
OPENING_MARKS = "([{«“‘「『（【《〈¿¡"


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle; times are in whole milliseconds, so that rounding cannot make cues overlap."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Unit:
    """Indivisible text: a word, or a character of a text without blanks."""

    text: str
    start: float
    end: float
    blank: bool
    """Whether a blank precedes it, unless it begins a line."""
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
    """Splits segments into cues; raises BadOption if words have no times."""
    units = list(_units(segments))
    groups = [units[begin:end] for begin, end in pairwise(_split_points(units))]
    cues: list[Cue] = []
    for index, group in enumerate(groups):
        following = groups[index + 1][0].start if index + 1 < len(groups) else None
        start, end = _span(group, following, cues[-1].end_ms if cues else 0)
        cues.append(Cue(start, end, _lines(group)))
    return cues


def columns(text: str) -> int:
    """Width of the text: wide characters count twice, combining ones not at all."""
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
            raise _missing_times(segment.text)
        for word in segment.words:
            blank = before[-1:] not in tuple(FULL_WIDTH_MARKS)
            yield from _units_of_word(word, blank=blank, is_last=word is segment.words[-1])
            before = word.text


def _units_of_word(word: Word, *, blank: bool, is_last: bool) -> Iterator[_Unit]:
    if word.start is None or word.end is None:
        raise _missing_times(word.text)
    pieces = _divide(word.text)
    shares = [0, *accumulate(len(piece) for piece in pieces)]
    seconds_each = (word.end - word.start) / max(1, shares[-1])
    for index, piece in enumerate(pieces):
        start, end = (word.start + share * seconds_each for share in shares[index : index + 2])
        yield _Unit(piece, start, end, blank and index == 0, is_last and index == len(pieces) - 1)


def _missing_times(text: str) -> BadOption:
    return BadOption(f"subtitles need times, and {text!r} has none", hint="this model gives no times: use txt or json")


def _divide(text: str) -> list[str]:
    """The characters of a text without blanks or of one that is too long for a line; otherwise the whole text."""
    text = "".join(text.split())
    wide = any(_columns_of(character) == 2 for character in text)
    if not wide and columns(text) <= COLUMNS:
        return [text] if text else []
    pieces: list[str] = []
    for character in text:
        if pieces and _is_unbreakable(pieces[-1], character, wide):
            pieces[-1] += character
        else:
            pieces.append(character)
    return pieces


def _is_unbreakable(piece: str, character: str, wide: bool) -> bool:
    """Whether a line break between the two is forbidden: before a closing mark, after an opening one, within a word of
    another script."""
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


def _split_points(units: Sequence[_Unit]) -> list[int]:
    """The indices at which the text is split with the lowest total cost, 0 and the number of units included."""
    edges = list(accumulate((unit.columns for unit in units), initial=0))
    ends_before = list(accumulate((unit.ends_segment for unit in units), initial=0))
    cheapest = [0.0] + [float("inf")] * len(units)
    previous = [0] * (len(units) + 1)
    for begin in range(len(units)):
        for end in _possible_ends(units, edges, begin):
            inner_ends = ends_before[end - 1] - ends_before[begin]
            cost = cheapest[begin] + _cost(units, begin, end, inner_ends)
            if cost < cheapest[end]:
                cheapest[end], previous[end] = cost, begin
    points = [len(units)]
    while points[-1] > 0:
        points.append(previous[points[-1]])
    return points[::-1]


def _possible_ends(units: Sequence[_Unit], edges: Sequence[int], begin: int) -> Iterator[int]:
    """All ends with which the cue fits two lines, is short enough and spans no pause; one unit is always allowed."""
    line_break = _last_in_line(units, edges, begin)
    for end in range(begin + 1, len(units) + 1):
        last = units[end - 1]
        if end > begin + 1:
            too_long = last.end - units[begin].start > MAX_SECONDS
            pause = last.start - units[end - 2].end > PAUSE
            too_wide = end > line_break and _width(units, edges, line_break, end) > COLUMNS
            if too_long or pause or too_wide:
                return
        yield end


def _last_in_line(units: Sequence[_Unit], edges: Sequence[int], begin: int) -> int:
    """The end of the longest line that begins here."""
    limit = edges[begin] + units[begin].blank + COLUMNS
    return max(begin + 1, bisect_right(edges, limit) - 1)


def _width(units: Sequence[_Unit], edges: Sequence[int], begin: int, end: int) -> int:
    return edges[end] - edges[begin] - units[begin].blank


def _cost(units: Sequence[_Unit], begin: int, end: int, inner_ends: int) -> float:
    """Cost of a cue: a constant, and more for a bad end, a short duration, or several sentences."""
    seconds = units[end - 1].end - units[begin].start
    if end < len(units):  # it may stay on the screen during the silence after it
        seconds = max(seconds, min(MIN_SECONDS, units[end].start - units[begin].start))
    return 1.0 + _split_cost(units, end) + 2.0 * max(0.0, MIN_SECONDS - seconds) + 1.2 * inner_ends


def _split_cost(units: Sequence[_Unit], end: int) -> float:
    last = units[end - 1]
    if last.ends_segment:
        return 0.0
    if last.text[-1] in CLAUSE_MARKS or units[end].start - last.end > PAUSE / 3:
        return 0.5
    return 1.5


def _span(group: Sequence[_Unit], following: float | None, previous_end_ms: int) -> tuple[int, int]:
    """Start and end in milliseconds: between the neighbouring cues, long enough to be read if possible."""
    start = max(previous_end_ms, round(group[0].start * 1000))
    end = max(round(group[-1].end * 1000), start + round(MIN_SECONDS * 1000))
    end = min(end, start + round(MAX_SECONDS * 1000))
    if following is not None:
        end = min(end, round(following * 1000))
    return start, max(end, start + 1)


def _lines(group: Sequence[_Unit]) -> tuple[str, ...]:
    """One line if the text fits, otherwise two of similar width, preferably split after a clause."""
    whole = _join(group)
    if columns(whole) <= COLUMNS or len(group) == 1:
        return (whole,)

    def cost(split: int) -> float:
        first, second = columns(_join(group[:split])), columns(_join(group[split:]))
        overflow = max(0, first - COLUMNS) + max(0, second - COLUMNS)
        return 100.0 * overflow + abs(first - second) - 10.0 * (group[split - 1].text[-1] in CLAUSE_MARKS)

    best = min(range(1, len(group)), key=cost)
    return (_join(group[:best]), _join(group[best:]))


def _join(group: Sequence[_Unit]) -> str:
    return "".join(f" {unit.text}" if unit.blank and index else unit.text for index, unit in enumerate(group))


# Text


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
