"""What the engine does next: streams first, by due time; guesses, audio ahead of its time and clips fill what is left.

Pure: it is told what there is and what time it is, and chooses. A turn cannot be interrupted, so a slice of a clip is
begun only where it ends before a stream needs the machine; so is a guess, and audio that came before it would have been
spoken. From when it would have been, it is work like any other: such a stream gets at least what a live one gets.
Of what fills the time that is left, what somebody waits for goes first, by due time, and the rest in the order in which
it came.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from conure.engine.step_costs import StepCosts

__all__ = ["MOST_ROWS", "ClipStep", "ClipWork", "Expected", "LiveWork", "Scheduler", "StreamStep"]

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
    firm_from: float = float("-inf")
    """Before, it is audio ahead of its time: done only in time that is left."""
    since: float = 0.0
    """When that came."""
    alone: bool = False
    """Then it shares no turn: one takes long, and others could not be begun meanwhile."""


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
class StreamStep:
    kind: Hashable
    streams: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True)
class ClipStep:
    work: ClipWork


class Scheduler:
    def __init__(self, costs: StepCosts) -> None:
        self.costs = costs

    def choose(
        self, now: float, live: Sequence[LiveWork], expected: Sequence[Expected], clips: Sequence[ClipWork]
    ) -> StreamStep | ClipStep | None:
        """The next turn; None where there is nothing to do, or nothing that may be begun now."""
        if firm := [work for work in live if not work.spare and work.firm_from <= now]:
            return self._streams(firm)
        coming = [*expected, *(Expected(work.kind, work.firm_from, work.due) for work in live if not work.spare)]
        spare: list[LiveWork | ClipWork] = [*live, *clips]
        for first in sorted(spare, key=_urgency):
            if isinstance(first, ClipWork):
                if self.fits(now + self.costs.guess(first.kind, first.size), coming):
                    return ClipStep(first)
            else:
                same = [first] if first.alone else [work for work in live if work.kind == first.kind]
                if turn := self._fitting(now, same, coming):
                    return turn
        return None

    def _fitting(self, now: float, live: Sequence[LiveWork], expected: Sequence[Expected]) -> StreamStep | None:
        """All of them, or as many as fit; guesses are made for all at once."""
        turn = self._streams(live)
        while not self.fits(now + self.costs.guess(turn.kind, turn.size), expected):
            if live[0].spare or len(turn.streams) == 1:
                return None
            chosen = set(turn.streams[: len(turn.streams) // 2])
            turn = self._streams([work for work in live if work.stream in chosen])
        return turn

    def _streams(self, live: Sequence[LiveWork]) -> StreamStep:
        first = min(live, key=lambda work: work.due)
        same = sorted((work for work in live if work.kind == first.kind), key=lambda work: work.due)[: first.most]
        return StreamStep(first.kind, tuple(work.stream for work in same), sum(work.size for work in same))

    def fits(self, over: float, expected: Sequence[Expected]) -> bool:
        """Whether a turn that is over then keeps no stream from being in time.

        Streams of one kind that come while it runs will share a turn after it; of several kinds, a turn each.
        """
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
    """What nobody waits for comes after what somebody does, by age."""
    if work.due is None or (isinstance(work, LiveWork) and not work.spare):
        return True, work.since
    return False, work.due
