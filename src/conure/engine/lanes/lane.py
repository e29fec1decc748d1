"""The interface between the loop and the lanes of live streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from conure.engine.messages import Samples, StreamEvent, StreamOptions
from conure.engine.scheduler import ExpectedWork, StreamWork
from conure.engine.stage_timer import StageTimer
from conure.vad.endpointing import Endpointing

__all__ = ["StreamingLane"]


class StreamingLane(Protocol):
    """Open streams of one model, by number. Events are emitted only in `run`, `drain` and `cancel`."""

    stages: StageTimer
    """Of the lane's steps."""

    def __len__(self) -> int:
        """Open streams."""
        ...

    @property
    def capacity(self) -> int:
        """Streams that may be open."""
        ...

    @property
    def latencies(self) -> tuple[int, ...]:
        """The latencies a stream may request, in milliseconds, ascending."""
        ...

    def open(self, number: int, options: StreamOptions, overdue_seconds: float = 0.0) -> bool:
        """False when the lane is full. `overdue_seconds`: audio at its beginning that is overdue."""
        ...

    def push(self, number: int, samples: Samples, now: float) -> None: ...

    def finalize(self, number: int, marker: int | None, now: float) -> None:
        """Finalizes all audio pushed so far; without a marker the stream ends there."""
        ...

    def configure(self, number: int, endpointing: Endpointing) -> None: ...

    def cancel(self, number: int) -> list[StreamEvent]: ...

    def drop(self, number: int) -> None:
        """Removes a stream without an event."""
        ...

    def backlog_seconds(self, number: int) -> float:
        """Seconds of audio that was received and is not processed yet."""
        ...

    def ready_work(self) -> list[StreamWork]:
        """Work that may start now; at most one for each stream."""
        ...

    def expected_work(self) -> list[ExpectedWork]:
        """Work to come if audio arrives in real time."""
        ...

    def run(self, numbers: Sequence[int], now: float) -> list[StreamEvent]:
        """One step for streams with work of one kind; some of its events may come with the next step."""
        ...

    @property
    def is_drained(self) -> bool:
        """Whether no step has events that are still to come."""
        ...

    def drain(self) -> list[StreamEvent]:
        """Waits for the events of the last step."""
        ...
