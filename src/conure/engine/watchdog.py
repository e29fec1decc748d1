"""Whether an engine answers, and whether to start it once more: failures in a row are counted, not time.

It has no clock. Where this process itself was held up, nothing was asked meanwhile, and so nothing was missed.
"""

from __future__ import annotations

from conure.engine.messages import (
    Answer,
    ClipTokens,
    Finished,
    Marker,
    Note,
    PartialTokens,
    StepTaken,
    StreamTokens,
    UtteranceEnded,
)

__all__ = ["MOST_MISSED", "MOST_STARTS", "Watchdog"]

LATE = 3
"""Looks in a row without a word, after which the engine is not relied on."""
MOST_MISSED = 15
"""The same, after which it is taken for dead."""
MOST_STARTS = 5
"""In a row, without an answer of any of them."""
SHORTEST, LONGEST = 0.2, 5.0
"""Seconds before a start that follows one which brought no work; they double from one to the next."""

WORK = (StepTaken, StreamTokens, PartialTokens, ClipTokens, UtteranceEnded, Marker, Finished)
"""A word of these tells that turns are made; another one, that the engine is there."""


class Watchdog:
    def __init__(self) -> None:
        self.starts = 0
        """Engines in a row that said nothing."""
        self._idle_starts = 0
        """The same, of those that did no work."""
        self._missed = 0
        self._is_new = True

    @property
    def answers(self) -> bool:
        """Whether the engine said something, and not long ago."""
        return not self._is_new and self._missed < LATE

    @property
    def may_start(self) -> bool:
        return self.starts < MOST_STARTS

    @property
    def pause(self) -> float:
        """Seconds to wait before the next start."""
        return min(SHORTEST * 2 ** (self._idle_starts - 1), LONGEST) if self._idle_starts > 1 else 0.0

    def begin(self) -> None:
        """An engine is started. What the one before it missed is not held against it."""
        self.starts += 1
        self._idle_starts += 1
        self._missed, self._is_new = 0, True

    def heard(self, messages: list[Answer | Note]) -> None:
        self._missed = self.starts = 0
        self._is_new = False
        if self._idle_starts and any(isinstance(message, WORK) for message in messages):
            self._idle_starts = 0

    def look(self) -> bool:
        """After a ping has had its time; True where the engine is to be killed."""
        self._missed += 1
        return self._missed >= MOST_MISSED
