"""Finalizes that an engine has answered, asked for once more where another engine hears the audio around them again.

So that engine cuts the stream at the same places, and the words beside them are the same ones. All that it tells
before it has answered the last of them was told by the engine before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from conure.engine.messages import ENDS, Answer, Marker, StreamOpened

__all__ = ["REPEATED", "AnsweredFinalizes"]

REPEATED = -1
"""The marker of a finalize that is asked for once more; nobody looks at it."""


class AnsweredFinalizes:
    """One stream's."""

    def __init__(self) -> None:
        self._places: deque[int] = deque()
        self._awaited = 0
        """How many are still to be answered once more."""

    def add(self, place: int, kept_from: int) -> None:
        """One that was answered; those before the audio that is kept are forgotten."""
        self._places.append(place)
        self._forget(kept_from)

    def replay_from(self, begin: int) -> Iterator[tuple[int, int]]:
        """Places and markers of those to be asked for when audio is heard again from sample `begin` on."""
        self._forget(begin)
        self._awaited = len(self._places)
        return ((place, REPEATED) for place in self._places)

    def is_repeat(self, answer: Answer) -> bool:
        """Whether what the engine tells was told before."""
        if not self._awaited or isinstance(answer, (StreamOpened, *ENDS)):
            return False
        self._awaited -= isinstance(answer, Marker)
        return True

    def _forget(self, before: int) -> None:
        while self._places and self._places[0] <= before:
            self._places.popleft()
