"""What the loop asks of whatever transcribes live streams of one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from conure.engine.messages import Answer, Samples, StreamOptions
from conure.engine.scheduler import Expected, LiveWork
from conure.engine.stage_timer import StageTimer
from conure.vad.endpointing import Endpointing

__all__ = ["StreamingLane"]


class StreamingLane(Protocol):
    """Streams that are open are known by their numbers; answers are made in `run`, `settle` and `cancel` alone."""

    stages: StageTimer
    """Of its turns."""

    def __len__(self) -> int:
        """Streams that are open."""
        ...

    @property
    def capacity(self) -> int:
        """Streams that may be open."""
        ...

    @property
    def latencies(self) -> tuple[int, ...]:
        """Those that a stream may ask for, in milliseconds, the least first."""
        ...

    def open(self, number: int, options: StreamOptions, late: float = 0.0) -> bool:
        """Whether there was room for it. `late`: seconds of its audio that should have been worked in before now."""
        ...

    def push(self, number: int, samples: Samples, now: float) -> None: ...

    def finalize(self, number: int, marker: int | None, now: float) -> None:
        """A cut after what was pushed; without a marker the stream ends there."""
        ...

    def configure(self, number: int, endpointing: Endpointing) -> None: ...

    def cancel(self, number: int) -> list[Answer]: ...

    def drop(self, number: int) -> None:
        """It is gone, without an answer."""
        ...

    def behind(self, number: int) -> float:
        """Seconds of audio that came and were not worked in."""
        ...

    def ready(self) -> list[LiveWork]:
        """What there is to do; at most one work for a stream."""
        ...

    def expected(self) -> list[Expected]:
        """What there will be, if samples come as fast as they are spoken."""
        ...

    def run(self, numbers: Sequence[int], now: float) -> list[Answer]:
        """A turn for streams whose work is ready and of one kind; some of its answers may come with the next one."""
        ...

    @property
    def is_settled(self) -> bool:
        """Whether all turns have given their answers."""
        ...

    def settle(self) -> list[Answer]:
        """Waits for the answers that are still to come."""
        ...
