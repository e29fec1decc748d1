"""Bounded queue of received events."""

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
"""An event of a stream; the last one is Finished or Cancelled."""

MAX_EVENTS = 10_000
"""Unread partials of a quarter of an hour."""


class EventQueue:
    def __init__(self, max_events: int = MAX_EVENTS) -> None:
        self.max_events = max_events
        self.is_over = False
        self._events: deque[Event] = deque()
        self._error: Exception | None = None
        self._filled = asyncio.Event()

    def put(self, event: Event) -> None:
        """Raises ReaderTooSlow if the queue is full."""
        if len(self._events) >= self.max_events:
            raise ReaderTooSlow(f"{self.max_events} events are unread", "read events while sending")
        self._events.append(event)
        self._filled.set()

    def end(self, error: Exception | None = None) -> None:
        """Ends the queue after the events that it holds. Only the first call has an effect."""
        if not self.is_over:
            self.is_over = True
            self._error = error
            self._filled.set()

    async def get(self) -> Event | None:
        """The next event; None after the last one. Raises the error that ended the stream."""
        while not self._events and not self.is_over:
            self._filled.clear()
            await self._filled.wait()
        if self._events:
            return self._events.popleft()
        if self._error is not None:
            raise self._error
        return None
