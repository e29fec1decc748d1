"""Queue of unacknowledged audio and requests, in order.

    put -> waiting -> get -> sent -> acknowledge
             ^                |
             +---- rewind ----+   the connection broke: what was sent is sent again

Positions are bytes of audio since the start of the stream. The server reads in order, so when it has audio after a
request it has the request too. A request right at the acknowledged position may or may not have been read; it is sent
again, which has no effect if the server had read it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from conure.client.errors import BadMessage, ConnectionLost
from conure.client.protocol import Close, Finalize

__all__ = ["SendQueue"]

REQUEST_SIZE = 64
"""Bytes charged for a request, so that the number of requests is bounded, too."""


class _Item(NamedTuple):
    end: int
    """Position after the item; a request has length 0."""
    content: bytes | Finalize | Close

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else REQUEST_SIZE


class SendQueue:
    """Bounded: `put` waits while more than `capacity` bytes are unacknowledged."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.received = 0
        """Bytes that the server has acknowledged."""
        self._end = 0
        self._held = 0
        self._sent_end = 0
        self._waiting: deque[_Item] = deque()
        self._sent: deque[_Item] = deque()
        self._error: Exception | None = None
        self._filled = asyncio.Event()
        self._freed = asyncio.Event()

    @property
    def held_bytes(self) -> int:
        """Bytes in the queue."""
        return self._held

    async def put(self, content: bytes | Finalize | Close) -> None:
        """Queues an item; waits while the queue is full. Raises the error that ended the queue.

        A cancelled `put` has queued nothing. Only one task may call it at a time.
        """
        end = self._end + (len(content) if isinstance(content, bytes) else 0)
        item = _Item(end, content)
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
        """The next item to send; it counts as sent from now on."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        item = self._waiting.popleft()
        self._sent.append(item)
        self._sent_end = item.end
        return item.content

    def acknowledge(self, received: int) -> None:
        """Drops what the server has acknowledged: `received` bytes. Raises BadMessage if fewer were sent."""
        if received > self._sent_end:
            raise BadMessage(f"the server acknowledged {received} bytes of audio, but {self._sent_end} were sent")
        self.received = max(self.received, received)
        while self._sent and self._is_acknowledged(self._sent[0]):
            self._held -= self._sent.popleft().size
        self._freed.set()

    def finalize_answered(self, number: int) -> None:
        """Drops the finalize request `number`: the server has answered it."""
        for items in (self._sent, self._waiting):
            for item in items:
                if isinstance(item.content, Finalize) and item.content.id == number:
                    items.remove(item)
                    self._held -= item.size
                    self._freed.set()
                    return

    def rewind(self, received: int) -> None:
        """Queues again what the server does not have. Raises ConnectionLost if that was already dropped."""
        if received < self.received:
            lost = self.received - received
            raise ConnectionLost(
                f"the server has lost {lost} bytes of audio that it had acknowledged", "start a new stream"
            )
        self.acknowledge(received)
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()
        self._sent_end = received
        self._trim_first(received)
        if self._waiting:
            self._filled.set()

    def end(self, error: Exception) -> None:
        """Ends the queue: `put` raises `error` from now on."""
        self._error = self._error or error
        self._freed.set()

    def _is_acknowledged(self, item: _Item) -> bool:
        return item.end < self.received or (item.end == self.received and isinstance(item.content, bytes))

    def _trim_first(self, received: int) -> None:
        """Removes the part of the first packet that the server already has."""
        for index, item in enumerate(self._waiting):
            if isinstance(item.content, bytes):
                left = item.end - received
                self._held -= item.size - min(left, item.size)
                self._waiting[index] = item._replace(content=item.content[-left:])
                return
