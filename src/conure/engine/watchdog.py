"""Decides whether an engine is responsive, and whether to start it again, from failures in a row.

Counts pings instead of time: a process that was suspended sent no pings, so the engine has missed none.
"""

from __future__ import annotations

from conure.engine.messages import (
    EngineEvent,
    Finished,
    Marker,
    PartialTokens,
    StepTaken,
    StreamEvent,
    StreamTokens,
    UtteranceEnded,
    UtteranceProgress,
)

__all__ = ["MAX_MISSED", "MAX_STARTS", "Watchdog"]

MAX_LATE = 3
"""Pings in a row without a message, after which the engine counts as not responsive."""
MAX_MISSED = 15
"""Pings in a row without a message, after which the engine is killed."""
MAX_STARTS = 5
"""Starts in a row without a message from any of the engines."""
MIN_DELAY, MAX_DELAY = 0.2, 5.0
"""Seconds before a start that follows an engine which did no work; doubled each time."""

WORK = (StepTaken, StreamTokens, PartialTokens, UtteranceProgress, UtteranceEnded, Marker, Finished)
"""Messages that prove that steps are completed; any other proves only that the engine runs."""


class Watchdog:
    def __init__(self) -> None:
        self.starts = 0
        """Starts in a row without a message."""
        self._idle_starts = 0
        """Starts in a row without work."""
        self._missed = 0
        self._is_new = True

    @property
    def is_responsive(self) -> bool:
        """Whether the engine sent a message recently."""
        return not self._is_new and self._missed < MAX_LATE

    @property
    def may_start(self) -> bool:
        return self.starts < MAX_STARTS

    @property
    def start_delay(self) -> float:
        """Seconds to wait before the next start."""
        return min(MIN_DELAY * 2 ** (self._idle_starts - 1), MAX_DELAY) if self._idle_starts > 1 else 0.0

    def engine_started(self) -> None:
        """Resets the missed pings: they were the previous engine's."""
        self.starts += 1
        self._idle_starts += 1
        self._missed, self._is_new = 0, True

    def messages_received(self, messages: list[StreamEvent | EngineEvent]) -> None:
        self._missed = self.starts = 0
        self._is_new = False
        if self._idle_starts and any(isinstance(message, WORK) for message in messages):
            self._idle_starts = 0

    def ping_missed(self) -> bool:
        """Counts a ping interval without a message; True when the engine must be killed."""
        self._missed += 1
        return self._missed >= MAX_MISSED
