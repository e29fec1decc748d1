"""Numbered events of a session on their way to a client, which can replay them after a reconnect.

Only events that a client must receive accumulate: a partial replaces the previous partial, and a lag the previous lag.
"""

from __future__ import annotations

import asyncio
from collections import deque

from msgspec.structs import replace

from conure.service.events import TERMINAL_EVENTS, Event, Lag, Partial

__all__ = ["EventLog"]

MAX_UNREAD = 1000
"""Unread events; beyond this the client is treated as not reading."""
REPLAYABLE = 256
"""Events that are kept after they were read."""


class EventLog:
    """Has one reader at a time, identified by a number; 0 is no reader."""

    def __init__(self) -> None:
        self.last_number = 0
        """Number of the last event."""
        self.reader_id = 0
        self._last_read = 0
        """Number of the last event that was read."""
        self._unread = 0
        """Events after that one."""
        self._last_dropped = 0
        """Number of the last dropped event that a client must receive."""
        self._events: deque[tuple[int, Event]] = deque()
        self._changed = asyncio.Event()

    @property
    def unread_count(self) -> int:
        """Events that were not read yet."""
        return self._unread

    @property
    def is_full(self) -> bool:
        return self._unread >= MAX_UNREAD

    @property
    def has_ended(self) -> bool:
        """Whether the last event ends the session."""
        return bool(self._events) and isinstance(self._events[-1][1], TERMINAL_EVENTS)

    def add(self, event: Event) -> None:
        event = self._merge(event)
        self.last_number += 1
        self._events.append((self.last_number, event))
        self._unread += 1
        while len(self._events) > REPLAYABLE and self._events[0][0] <= self._last_read:
            self._last_dropped = self._events.popleft()[0]
        self._changed.set()

    def assign_reader(self, reader: int) -> None:
        """Replaces the reader; the previous one gets no more events."""
        self.reader_id = reader
        self._changed.set()

    def can_replay_after(self, after: int) -> bool:
        """Whether all events after that number are still available."""
        return self._last_dropped <= after <= self.last_number

    async def read_after(self, after: int, reader: int) -> list[tuple[int, Event]]:
        """(number, event) after that number; waits for one. Empty for any other reader than the current one."""
        while reader == self.reader_id and self.last_number <= after:
            self._changed.clear()
            await self._changed.wait()
        if reader != self.reader_id:
            return []
        events = [pair for pair in self._events if pair[0] > after]
        self._last_read, self._unread = self.last_number, 0
        return events

    def _merge(self, event: Event) -> Event:
        """Removes the partial or lag that the event replaces; a partial takes over its unread tokens.

        A lag may stand between two partials.
        """
        if not isinstance(event, Partial | Lag):
            return event
        for index in range(len(self._events) - 1, max(len(self._events) - 3, -1), -1):
            number, previous = self._events[index]
            if not isinstance(previous, Partial | Lag):
                break
            if type(previous) is not type(event):
                continue
            if isinstance(previous, Partial) and isinstance(event, Partial):
                if previous.utterance != event.utterance:
                    break
                if number > self._last_read:
                    event = replace(event, tokens=previous.tokens + event.tokens)
            del self._events[index]
            self._unread -= number > self._last_read
            break
        return event
