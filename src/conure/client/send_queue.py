"""What the server may not have yet: audio and requests in their order, kept until they are safe.

    put -> waiting -> take -> written -> forget
             ^                   |
             +----- rewind ------+   the connection broke: what was written is written again

Places are bytes of audio since the start of the stream. A server reads in order, so one that has audio from behind a
request has the request too. Only a request right at the end of what the server has may or may not have been read; it
is sent again, and asks for nothing new where it had been.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from conure.client.errors import BadMessage, ConnectionLost
from conure.client.protocol import Close, Finalize

__all__ = ["SendQueue"]

REQUEST_SIZE = 64
"""Bytes that a request counts for, so that requests too are bounded."""


class _Item(NamedTuple):
    end: int
    """Place behind it; a request takes no room there."""
    what: bytes | Finalize | Close

    @property
    def size(self) -> int:
        return len(self.what) if isinstance(self.what, bytes) else REQUEST_SIZE


class SendQueue:
    """Bounded: who puts more than `capacity` bytes waits until the server has some of it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.received = 0
        """Bytes that are safe on the server's side."""
        self._end = 0
        self._held = 0
        self._written_end = 0
        self._waiting: deque[_Item] = deque()
        self._written: deque[_Item] = deque()
        self._error: Exception | None = None
        self._filled = asyncio.Event()
        self._freed = asyncio.Event()

    @property
    def held_bytes(self) -> int:
        """Bytes that are kept."""
        return self._held

    async def put(self, what: bytes | Finalize | Close) -> None:
        """Keep and send it, once there is room. Raises what the outbox was ended with.

        A put that is cancelled has put nothing. One task at a time.
        """
        end = self._end + (len(what) if isinstance(what, bytes) else 0)
        item = _Item(end, what)
        while self._error is None and self._held and self._held + item.size > self.capacity:
            self._freed.clear()
            await self._freed.wait()
        if self._error is not None:
            raise self._error
        self._end = end
        self._held += item.size
        self._waiting.append(item)
        self._filled.set()

    async def get(self) -> bytes | Finalize | Close:
        """The next to be written; from then on it counts as written."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        item = self._waiting.popleft()
        self._written.append(item)
        self._written_end = item.end
        return item.what

    def acknowledge(self, received: int) -> None:
        """The server has so many bytes. Raises BadMessage if so many were not sent."""
        if received > self._written_end:
            raise BadMessage(f"the server has received {received} bytes of audio, and {self._written_end} were sent")
        self.received = max(self.received, received)
        while self._written and self._is_safe(self._written[0]):
            self._held -= self._written.popleft().size
        self._freed.set()

    def finalize_answered(self, number: int) -> None:
        """The server has answered the finalize of that number."""
        for items in (self._written, self._waiting):
            for item in items:
                if isinstance(item.what, Finalize) and item.what.id == number:
                    items.remove(item)
                    self._held -= item.size
                    self._freed.set()
                    return

    def rewind(self, received: int) -> None:
        """Write again what the server does not have. Raises ConnectionLost if it wants what was forgotten."""
        if received < self.received:
            lost = self.received - received
            raise ConnectionLost(
                f"the server has lost {lost} bytes of audio that it had received", "start a new stream"
            )
        self.acknowledge(received)
        self._waiting.extendleft(reversed(self._written))
        self._written.clear()
        self._written_end = received
        self._cut_first(received)
        if self._waiting:
            self._filled.set()

    def end(self, error: Exception) -> None:
        """Nothing more can be put, and nobody waits."""
        self._error = self._error or error
        self._freed.set()

    def _is_safe(self, item: _Item) -> bool:
        return item.end < self.received or (item.end == self.received and isinstance(item.what, bytes))

    def _cut_first(self, received: int) -> None:
        """The server may have the beginning of a packet."""
        for index, item in enumerate(self._waiting):
            if isinstance(item.what, bytes):
                left = item.end - received
                self._held -= item.size - min(left, item.size)
                self._waiting[index] = item._replace(what=item.what[-left:])
                return
