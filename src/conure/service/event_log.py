"""Events of a session on their way to a client, numbered, so that a client that was away can have them again.

Only what a client must have takes room: a partial replaces the one before it, and so does a lag.
"""

from __future__ import annotations

import asyncio
from collections import deque

from msgspec.structs import replace

from conure.service.events import TERMINAL_EVENTS, Event, Lag, Partial

__all__ = ["EventLog"]

MOST_WAITING = 1000
"""Events that nobody has taken. Who is further behind does not read at all."""
KEPT = 256
"""Events that are kept after they were taken."""


class EventLog:
    """Has one reader at a time, known by a number; 0 is nobody."""

    def __init__(self) -> None:
        self.last_number = 0
        """Number of the last event."""
        self.reader_id = 0
        self._taken = 0
        """Number of the last event that was taken."""
        self._waiting = 0
        """Events after it that are here."""
        self._forgotten = 0
        """Number of the last event that a client must have and that is not here any more."""
        self._events: deque[tuple[int, Event]] = deque()
        self._changed = asyncio.Event()

    @property
    def unread_count(self) -> int:
        """Events that nobody has taken."""
        return self._waiting

    @property
    def is_full(self) -> bool:
        return self._waiting >= MOST_WAITING

    @property
    def has_ended(self) -> bool:
        """The last event is the session's last."""
        return bool(self._events) and isinstance(self._events[-1][1], TERMINAL_EVENTS)

    def add(self, event: Event) -> None:
        event = self._instead(event)
        self.last_number += 1
        self._events.append((self.last_number, event))
        self._waiting += 1
        while len(self._events) > KEPT and self._events[0][0] <= self._taken:
            self._forgotten = self._events.popleft()[0]
        self._changed.set()

    def assign_reader(self, reader: int) -> None:
        """Who reads from now on; the one before finds nothing more."""
        self.reader_id = reader
        self._changed.set()

    def can_replay_after(self, after: int) -> bool:
        """Whether what comes after that event is still there."""
        return self._forgotten <= after <= self.last_number

    async def read_after(self, after: int, reader: int) -> list[tuple[int, Event]]:
        """Events after that number; waits for one. None for who is not the reader."""
        while reader == self.reader_id and self.last_number <= after:
            self._changed.clear()
            await self._changed.wait()
        if reader != self.reader_id:
            return []
        found = [pair for pair in self._events if pair[0] > after]
        self._taken, self._waiting = self.last_number, 0
        return found

    def _instead(self, event: Event) -> Event:
        """The event with what nobody took of the one that it replaces, which is gone; a lag may stand between."""
        if not isinstance(event, Partial | Lag):
            return event
        for index in range(len(self._events) - 1, max(len(self._events) - 3, -1), -1):
            number, before = self._events[index]
            if not isinstance(before, Partial | Lag):
                break
            if type(before) is not type(event):
                continue
            if isinstance(before, Partial) and isinstance(event, Partial):
                if before.utterance != event.utterance:
                    break
                if number > self._taken:
                    event = replace(event, tokens=before.tokens + event.tokens)
            del self._events[index]
            self._waiting -= number > self._taken
            break
        return event
