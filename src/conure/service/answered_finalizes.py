"""Finalizes that an engine has answered, to be repeated when a restarted engine processes the audio around them again.

The new engine then flushes the stream at the same samples and produces the same words beside them. Everything that it
sends before its answer to the last repeated finalize has been sent by the previous engine, and is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from conure.engine.messages import FINAL_EVENTS, Marker, StreamEvent, StreamOpened

__all__ = ["REPEATED", "AnsweredFinalizes"]

REPEATED = -1
"""Marker number of a repeated finalize; its answer is dropped."""


class AnsweredFinalizes:
    """Those of one stream."""

    def __init__(self) -> None:
        self._positions: deque[int] = deque()
        """Samples, ascending."""
        self._unanswered = 0
        """Repeated finalizes that are not answered yet."""

    def add(self, position: int, kept_from: int) -> None:
        """Adds an answered finalize, and drops those before the audio that is kept."""
        self._positions.append(position)
        self._drop_before(kept_from)

    def replay_from(self, begin: int) -> Iterator[tuple[int, int]]:
        """(position, marker) of the finalizes to repeat when audio is sent again from sample `begin` on."""
        self._drop_before(begin)
        self._unanswered = len(self._positions)
        return ((position, REPEATED) for position in self._positions)

    def is_repeat(self, answer: StreamEvent) -> bool:
        """Whether the previous engine has sent this answer already."""
        if not self._unanswered or isinstance(answer, (StreamOpened, *FINAL_EVENTS)):
            return False
        self._unanswered -= isinstance(answer, Marker)
        return True

    def _drop_before(self, position: int) -> None:
        while self._positions and self._positions[0] <= position:
            self._positions.popleft()
