"""Events of a session on their way to a client, numbered, so that a client that was away can have them again.

Only what a client must have takes room: a partial replaces one that nobody has taken yet, and so does a lag.
"""

from __future__ import annotations

import asyncio
from collections import deque

from msgspec.structs import replace

from conure.service.events import LAST, Event, Lag, Partial

__all__ = ["EventLog"]

MOST_WAITING = 1000
"""Events that nobody has taken. Who is further behind does not read at all."""
KEPT = 256
"""Events that are kept after they were taken."""


class EventLog:
    def __init__(self) -> None:
        self.last = 0
        """Number of the last event."""
        self.taken = 0
        """Number of the last event that was taken."""
        self._events: deque[tuple[int, Event]] = deque()
        self._grown = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return self.last - self.taken > MOST_WAITING

    @property
    def is_over(self) -> bool:
        """The last event is the session's last."""
        return bool(self._events) and isinstance(self._events[-1][1], LAST)

    def add(self, event: Event) -> None:
        if self._events and self.last > self.taken:
            before = self._events[-1][1]
            if isinstance(event, Partial) and isinstance(before, Partial) and before.utterance == event.utterance:
                event = replace(event, tokens=before.tokens + event.tokens)
                self._events.pop()
            elif isinstance(event, Lag) and isinstance(before, Lag):
                self._events.pop()
        self.last += 1
        self._events.append((self.last, event))
        while len(self._events) > KEPT and self._events[0][0] <= self.taken:
            self._events.popleft()
        self._grown.set()

    def has(self, after: int) -> bool:
        """Whether what comes after that event is still there."""
        first = self._events[0][0] if self._events else self.last + 1
        return 0 <= after <= self.last and (after >= self.taken or first <= after + 1)

    async def take(self, after: int) -> list[tuple[int, Event]]:
        """Events after that number; waits for one."""
        while self.last <= after:
            self._grown.clear()
            await self._grown.wait()
        found = [pair for pair in self._events if pair[0] > after]
        self.taken = max(self.taken, self.last)
        return found
