"""Chooses the engine's next step: due streams first; partials, early audio and clips fill the remaining time.

Pure: work and the clock are arguments. A step cannot be interrupted, so a step of clips starts only if it ends before a
stream needs the machine. The same holds for optional partials and for early audio, which arrived faster than real time.
Once real time has caught up, early audio is due like any other, so such a stream gets at least the throughput of a live
one. In the remaining time, work with a due time comes first, by due time; the rest follows in order of arrival.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from conure.engine.step_costs import StepCosts

__all__ = ["MAX_ROWS", "ClipStep", "ClipWork", "ExpectedWork", "StreamWork", "Scheduler", "StreamStep"]

MAX_ROWS = 256
"""Streams in a step."""
SILENT_SECONDS = 1.0
"""Without audio for so long, a stream is not expected any more; when it resumes it may wait for a step of clips."""


@dataclass(frozen=True, slots=True)
class StreamWork:
    """Work of a stream: a complete chunk, or what its lane has to do besides."""

    stream: int
    kind: Hashable
    """Works of the same kind (a lane and a chunk size) may share a step."""
    due: float
    """When it should be done: one chunk's duration after the chunk was complete."""
    size: int = 1
    """Rows or seconds of audio, depending on the kind."""
    max_streams: int = MAX_ROWS
    """Streams of its kind that may share a step."""
    is_optional: bool = False
    """A partial, which the final will replace: computed only in remaining time."""
    realtime_from: float = float("-inf")
    """Until this time the audio is early, and processed only in remaining time."""
    arrived_at: float = 0.0
    is_exclusive: bool = False
    """Shares no step: it takes long, and other streams would wait for all of it."""


@dataclass(frozen=True, slots=True)
class ExpectedWork:
    """A stream that will have a complete chunk."""

    kind: Hashable
    ready_at: float
    due: float

    def is_silent(self, now: float) -> bool:
        """Whether its audio is long overdue, so that no clip needs to wait for it."""
        return now - self.ready_at > SILENT_SECONDS


@dataclass(frozen=True, slots=True)
class ClipWork:
    """The next step of a clip, or of a batch of clips."""

    clip: int
    kind: Hashable
    size: int
    arrived_at: float
    due: float | None = None
    """None for clips without high priority."""


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
        self, now: float, live: Sequence[StreamWork], expected: Sequence[ExpectedWork], clips: Sequence[ClipWork]
    ) -> StreamStep | ClipStep | None:
        """The next step; None when there is no work, or none that may start now."""
        if due := [work for work in live if not work.is_optional and work.realtime_from <= now]:
            return self._batch(due)
        early = [ExpectedWork(work.kind, work.realtime_from, work.due) for work in live if not work.is_optional]
        deadlines = [*expected, *early]
        fillers: list[StreamWork | ClipWork] = [*live, *clips]
        for first in sorted(fillers, key=_priority):
            if isinstance(first, ClipWork):
                if self.meets_deadlines(now + self.costs.estimate(first.kind, first.size), deadlines):
                    return ClipStep(first)
            else:
                same_kind = [first] if first.is_exclusive else [work for work in live if work.kind == first.kind]
                if step := self._fitting_batch(now, same_kind, deadlines):
                    return step
        return None

    def _fitting_batch(
        self, now: float, live: Sequence[StreamWork], expected: Sequence[ExpectedWork]
    ) -> StreamStep | None:
        """All of them, or as many as fit; optional work is done for all at once or not at all."""
        step = self._batch(live)
        while not self.meets_deadlines(now + self.costs.estimate(step.kind, step.size), expected):
            if live[0].is_optional or len(step.streams) == 1:
                return None
            chosen = set(step.streams[: len(step.streams) // 2])
            step = self._batch([work for work in live if work.stream in chosen])
        return step

    def _batch(self, live: Sequence[StreamWork]) -> StreamStep:
        """The most urgent work, with others of its kind by due time."""
        first = min(live, key=lambda work: work.due)
        same_kind = sorted((work for work in live if work.kind == first.kind), key=lambda work: work.due)
        batch = same_kind[: first.max_streams]
        return StreamStep(first.kind, tuple(work.stream for work in batch), sum(work.size for work in batch))

    def meets_deadlines(self, end: float, expected: Sequence[ExpectedWork]) -> bool:
        """Whether all streams are in time after a step that ends at `end`.

        Streams of one kind that become ready during the step share the step after it; several kinds take one step each.
        """
        ready: dict[Hashable, list[float]] = {}
        for stream in expected:
            if stream.ready_at <= end:
                ready.setdefault(stream.kind, []).append(stream.due)
        for kind, dues in sorted(ready.items(), key=lambda pair: min(pair[1])):
            end += self.costs.estimate(kind, len(dues))
            if end > min(dues):
                return False
        return True


def _priority(work: StreamWork | ClipWork) -> tuple[bool, float]:
    """Sort key: partials and clips with a due time, by due time; then the rest, by time of arrival."""
    if work.due is None or (isinstance(work, StreamWork) and not work.is_optional):
        return True, work.arrived_at
    return False, work.due
