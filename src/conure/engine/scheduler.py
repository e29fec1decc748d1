"""What the engine does next: streams first, by due time; guesses and clips fill the time that is left.

Pure: it is told what there is and what time it is, and chooses. A turn cannot be interrupted, so a slice of a clip is
begun only where it ends before a stream needs the machine; so is a guess. Of these, what somebody waits for goes
first, by due time, and the rest in the order in which it came.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from conure.engine.cost import Costs

__all__ = ["MOST_ROWS", "ClipTurn", "ClipWork", "Expected", "LiveWork", "Scheduler", "StreamTurn"]

MOST_ROWS = 256
"""Streams in a turn."""
SILENT_SECONDS = 1.0
"""After which a stream that sends nothing is not planned with; when it goes on it may wait for one slice of a clip."""


@dataclass(frozen=True, slots=True)
class LiveWork:
    """A stream that has a whole chunk, or other work."""

    stream: int
    kind: Hashable
    """What may share a turn: a lane and a chunk size."""
    due: float
    """When it should be done: a chunk's length after it was whole."""
    size: int = 1
    """How much it is, as the kind counts: rows, or seconds of audio."""
    most: int = MOST_ROWS
    """Streams of its kind that may share a turn."""
    spare: bool = False
    """A guess at what will be known for sure later: done only in time that is left."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A stream that will have a whole chunk."""

    kind: Hashable
    ready: float
    due: float

    def is_silent(self, now: float) -> bool:
        """It should have had its chunk long ago: nobody knows when it goes on, and no recording waits for it."""
        return now - self.ready > SILENT_SECONDS


@dataclass(frozen=True, slots=True)
class ClipWork:
    """The next slice of a clip, or of a batch of them."""

    clip: int
    kind: Hashable
    size: int
    since: float
    """When the clip came."""
    due: float | None = None
    """When an urgent one should be done."""


@dataclass(frozen=True, slots=True)
class StreamTurn:
    kind: Hashable
    streams: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True)
class ClipTurn:
    work: ClipWork


class Scheduler:
    def __init__(self, costs: Costs) -> None:
        self.costs = costs

    def choose(
        self, now: float, live: Sequence[LiveWork], expected: Sequence[Expected], clips: Sequence[ClipWork]
    ) -> StreamTurn | ClipTurn | None:
        """The next turn; None where there is nothing to do, or nothing that may be begun now."""
        if firm := [work for work in live if not work.spare]:
            return self._streams(firm)
        spare: list[LiveWork | ClipWork] = [*live, *clips]
        for first in sorted(spare, key=_urgency):
            if isinstance(first, ClipWork):
                if self._fits(now, first.kind, first.size, expected):
                    return ClipTurn(first)
            else:
                turn = self._streams([work for work in live if work.kind == first.kind])
                if self._fits(now, turn.kind, turn.size, expected):
                    return turn
        return None

    def _streams(self, live: Sequence[LiveWork]) -> StreamTurn:
        first = min(live, key=lambda work: work.due)
        same = sorted((work for work in live if work.kind == first.kind), key=lambda work: work.due)[: first.most]
        return StreamTurn(first.kind, tuple(work.stream for work in same), sum(work.size for work in same))

    def _fits(self, now: float, kind: Hashable, size: int, expected: Sequence[Expected]) -> bool:
        """Whether the turn is over before any stream would be late for it.

        Streams of one kind that come while it runs will share a turn after it; of several kinds, a turn each.
        """
        over = now + self.costs.guess(kind, size)
        arriving: dict[Hashable, list[float]] = {}
        for stream in expected:
            if stream.ready <= over:
                arriving.setdefault(stream.kind, []).append(stream.due)
        for coming, dues in sorted(arriving.items(), key=lambda pair: min(pair[1])):
            over += self.costs.guess(coming, len(dues))
            if over > min(dues):
                return False
        return True


def _urgency(work: LiveWork | ClipWork) -> tuple[bool, float]:
    """What has no due time comes after what has, by age."""
    if work.due is None:
        return True, work.since
    return False, work.due
