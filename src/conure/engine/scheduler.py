"""What the engine does next: streams first, by due time; clips fill the time that is left.

Pure: it is told what there is and what time it is, and chooses. A turn cannot be interrupted, so a slice of a clip is
begun only where it ends before a stream needs the machine.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from conure.engine.cost import Costs

__all__ = ["ClipTurn", "ClipWork", "Expected", "LiveWork", "Scheduler", "StreamTurn"]


@dataclass(frozen=True, slots=True)
class LiveWork:
    """A stream that has a whole chunk."""

    stream: int
    kind: Hashable
    """What may share a turn: a lane and a chunk size."""
    due: float
    """When it should be done: a chunk's length after it was whole."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A stream that will have a whole chunk."""

    kind: Hashable
    ready: float
    due: float


@dataclass(frozen=True, slots=True)
class ClipWork:
    """The next slice of a clip, or of a batch of them."""

    clip: int
    kind: Hashable
    size: int
    since: float
    """When the clip came."""


@dataclass(frozen=True, slots=True)
class StreamTurn:
    kind: Hashable
    streams: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ClipTurn:
    work: ClipWork


class Scheduler:
    def __init__(self, costs: Costs, most_rows: int = 256) -> None:
        self.costs = costs
        self.most_rows = most_rows

    def choose(
        self, now: float, live: Sequence[LiveWork], expected: Sequence[Expected], clips: Sequence[ClipWork]
    ) -> StreamTurn | ClipTurn | None:
        """The next turn; None where there is nothing to do, or nothing that may be begun now."""
        if live:
            return self._streams(live)
        fitting = [clip for clip in clips if self._fits(now, clip, expected)]
        return ClipTurn(min(fitting, key=lambda clip: clip.since)) if fitting else None

    def _streams(self, live: Sequence[LiveWork]) -> StreamTurn:
        first = min(live, key=lambda work: work.due)
        same = sorted((work for work in live if work.kind == first.kind), key=lambda work: work.due)
        return StreamTurn(first.kind, tuple(work.stream for work in same[: self.most_rows]))

    def _fits(self, now: float, clip: ClipWork, expected: Sequence[Expected]) -> bool:
        """Whether the slice is over before any stream would be late for it.

        Streams of one kind that come while the slice runs will share a turn after it; of several kinds, a turn each.
        """
        over = now + self.costs.guess(clip.kind, clip.size)
        arriving: dict[Hashable, list[float]] = {}
        for stream in expected:
            if stream.ready <= over:
                arriving.setdefault(stream.kind, []).append(stream.due)
        for kind, dues in sorted(arriving.items(), key=lambda pair: min(pair[1])):
            over += self.costs.guess(kind, len(dues))
            if over > min(dues):
                return False
        return True
