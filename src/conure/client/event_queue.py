"""Events that wait for their reader: in order, each once, and not without end."""

from __future__ import annotations

import asyncio
from collections import deque

from conure.client.errors import ReaderTooSlow
from conure.client.protocol import (
    Cancelled,
    Final,
    Finished,
    Lag,
    Marker,
    Partial,
    SpeechStarted,
    UtteranceEnd,
    Warned,
)

__all__ = ["Event", "EventQueue"]

Event = SpeechStarted | Partial | UtteranceEnd | Final | Marker | Lag | Warned | Finished | Cancelled
"""What a reader of a stream gets; the last is Finished or Cancelled."""

MOST = 10_000
"""Events: a quarter of an hour of partials that nobody reads."""


class EventQueue:
    def __init__(self, most: int = MOST) -> None:
        self.max_events = most
        self.is_over = False
        self._events: deque[Event] = deque()
        self._error: Exception | None = None
        self._filled = asyncio.Event()

    def put(self, event: Event) -> None:
        """Raises ReaderTooSlow if as many as are kept lie unread."""
        if len(self._events) >= self.max_events:
            raise ReaderTooSlow(f"{self.max_events} events lie unread", "read the events while you send")
        self._events.append(event)
        self._filled.set()

    def end(self, error: Exception | None = None) -> None:
        """No event comes after those that are there; the first end counts."""
        if not self.is_over:
            self.is_over = True
            self._error = error
            self._filled.set()

    async def get(self) -> Event | None:
        """The next event; None once there are no more. Raises what the stream ended with."""
        while not self._events and not self.is_over:
            self._filled.clear()
            await self._filled.wait()
        if self._events:
            return self._events.popleft()
        if self._error is not None:
            raise self._error
        return None
