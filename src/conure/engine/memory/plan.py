"""What each model may take of its device's memory, settled before anything runs. Pure.

First come the weights of all models, then the least that each can work with: one stream (or as many as were asked for)
and one clip of half a minute. What is left is cut into equal parts, one for the streams and one for the clips of each
model; who can use less takes less, and leaves the rest to the others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from conure.errors import OutOfMemory

__all__ = ["CLIP", "Clips", "Grant", "Need", "Streams", "least", "share", "table"]

CLIP = 30
"""Seconds of the clips that batches are made of."""
LONGEST = 4 * 3600
"""Seconds beyond which nobody asks whether a clip fits."""


@dataclass(frozen=True)
class Streams:
    """What live streams take, in bytes."""

    row: int
    """What a stream remembers."""
    most: int
    """Streams that are of use."""
    asked: int | None = None
    """So many, neither more nor less."""
    turn: int = 0
    """What a stream takes beside it while its turn runs."""
    together: int = 1
    """Streams in the largest turn."""
    fixed: int = 0
    """For any number of streams."""

    @property
    def least(self) -> int:
        return self.asked or 1

    @property
    def wanted(self) -> int:
        return self.asked or self.most

    def bytes(self, rows: int) -> int:
        return self.fixed + self.row * rows + self.turn * min(rows, self.together)


@dataclass(frozen=True)
class Clips:
    """What batches of clips take."""

    bytes: Callable[[int, float], int]
    """Of so many clips of so many seconds; never less for more or longer ones."""
    most: int
    """Seconds of audio in a batch that are of use."""

    @property
    def least(self) -> int:
        return self.bytes(1, CLIP)

    @property
    def wanted(self) -> int:
        return self.bytes(max(self.most // CLIP, 1), CLIP)


@dataclass(frozen=True)
class Need:
    model: str
    weights: int
    streams: Streams | None = None
    clips: Clips | None = None

    @property
    def least(self) -> int:
        """Beside the weights."""
        streams = self.streams.bytes(self.streams.least) if self.streams else 0
        return streams + (self.clips.least if self.clips else 0)


@dataclass(frozen=True)
class Grant:
    need: Need
    rows: int = 0
    batches: int = 0
    """Bytes for batches of clips."""

    @property
    def seconds(self) -> int:
        """The most audio in a batch of clips of half a minute or less."""
        assert self.need.clips
        return min(self.need.clips.most, CLIP * self.most_clips(CLIP))

    @property
    def longest(self) -> int:
        """Seconds of the longest clip."""
        clips = self.need.clips
        assert clips
        return _most(lambda seconds: clips.bytes(1, seconds), LONGEST, self.batches)

    @property
    def bytes(self) -> int:
        streams = self.need.streams.bytes(self.rows) if self.need.streams else 0
        return self.need.weights + streams + self.batches

    def most_clips(self, seconds: float) -> int:
        """Clips of so many seconds that a batch may hold; 0 where one is too long."""
        clips = self.need.clips
        assert clips
        of_use = max(int(clips.most // max(seconds, 1)), 1)
        return _most(lambda count: clips.bytes(count, seconds), of_use, self.batches)


def least(needs: Sequence[Need]) -> int:
    """Bytes without which there is no starting."""
    return sum(need.weights + need.least for need in needs)


def share(budget: int, needs: Sequence[Need]) -> list[Grant]:
    """What each may take of so many bytes. Raises OutOfMemory where they are too few for the least."""
    if least(needs) > budget:
        raise _too_little(budget, needs)
    rest = budget - least(needs)
    asking: list[Streams | Clips] = [part for need in needs for part in (need.streams, need.clips) if part]
    parts = iter(_parts(rest, [_more(part) for part in asking]))
    return [_grant(need, parts) for need in needs]


def table(budget: int, grants: Sequence[Grant]) -> list[str]:
    """A line for each model that takes anything, and one for what is spare."""
    lines = [f"{grant.need.model}: {', '.join(told)}" for grant in grants if (told := _told(grant))]
    spare = budget - sum(grant.bytes for grant in grants)
    return [*lines, f"{_size(spare)} of {_size(budget)} are spare"]


def _grant(need: Need, parts: Iterator[int]) -> Grant:
    rows = batches = 0
    if streams := need.streams:
        rows = _most(streams.bytes, streams.wanted, streams.bytes(streams.least) + next(parts))
    if need.clips:
        batches = need.clips.least + next(parts)
    return Grant(need, rows, batches)


def _more(part: Streams | Clips) -> int:
    """Bytes that would be of use beyond the least."""
    if isinstance(part, Streams):
        return part.bytes(part.wanted) - part.bytes(part.least)
    return part.wanted - part.least


def _parts(room: int, wanted: Sequence[int]) -> list[int]:
    """Equal ones, but for those who want less."""
    given = list(wanted)
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    for place, index in enumerate(order):
        part = room // (len(order) - place)
        if wanted[index] > part:
            for other in order[place:]:
                given[other] = part
            break
        room -= wanted[index]
    return given


def _most(cost: Callable[[int], int], limit: int, room: int) -> int:
    """The largest number up to `limit` whose cost fits."""
    return bisect_right(range(1, limit + 1), room, key=cost)


def _too_little(budget: int, needs: Sequence[Need]) -> OutOfMemory:
    """Names the first model that does not fit any more."""
    parts = [(need, "the weights", need.weights) for need in needs]
    parts += [(need, "the work", need.least) for need in needs]
    taken = accumulate(size for _, _, size in parts)
    need, what, _ = next(part for part, so_far in zip(parts, taken, strict=True) if so_far > budget)
    asked = need.streams.asked if need.streams else None
    missing = least(needs) - budget
    message = f"{missing:,} bytes of memory are missing for {what} of {need.model}, with {_size(budget)} for all models"
    fewer = f"fewer slots than {asked}, " if asked and asked > 1 else ""
    return OutOfMemory(message, f"ask for {fewer}a smaller model, or fewer models")


def _told(grant: Grant) -> list[str]:
    need, told = grant.need, []
    if need.weights:
        told.append(f"weights {_size(need.weights)}")
    if need.streams:
        told.append(f"{grant.rows} rows {_size(need.streams.bytes(grant.rows))}")
    if need.clips:
        told.append(f"clips {_size(grant.batches)} ({grant.seconds} s at once, one of {grant.longest} s at most)")
    return told


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
