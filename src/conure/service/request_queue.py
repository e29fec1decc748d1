"""What a client sends a stream, in its order: audio as bytes, and requests between them.

    put, then ──> at once, where nothing waits before it and there is room
        └───────> spool ──> a task that takes one after the other, as there is room

Whoever sends is never kept waiting, so a connection is read on whatever is waiting. Tiny packets are put together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from conure.audio.spool import Spool, SpoolSpace
from conure.background import report_failure, start_task

__all__ = ["RequestConsumer", "RequestQueue"]

INBOX = "inbox"
"""The name of its task."""
SMALL = 80
"""Bytes of a packet, below which it waits for others: 2.5 ms of PCM at 16 kHz."""
GATHER = 0.005
"""Seconds that it may wait."""
PIECE = 2**16
"""Bytes that are handed on at once."""
MOST_ACTIONS = 10_000
"""Requests that may wait."""
LOOK = 0.05

Action = Callable[[], Awaitable[None]]


class RequestConsumer(Protocol):
    @property
    def is_writable(self) -> bool:
        """Whether `hear` and actions would wait for nothing."""
        ...

    def process_now(self, data: bytes) -> None:
        """As `hear`, where there is room."""
        ...

    async def process(self, data: bytes) -> None:
        """Waits until there is room, and while the audio is decoded."""
        ...

    def fail(self, error: Exception) -> None:
        """Nothing more can be handed on."""
        ...


class RequestQueue:
    def __init__(self, consumer: RequestConsumer, space: SpoolSpace) -> None:
        self.received_bytes = 0
        """Bytes of audio."""
        self._consumer = consumer
        self._spool = Spool(space)
        self._actions: deque[tuple[int, Action]] = deque()
        """Each with the audio before it, in bytes."""
        self._taken = 0
        """Bytes that were handed on."""
        self._working: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_empty(self) -> bool:
        """All was handed on."""
        return self._working is None

    def put_audio(self, data: bytes) -> None:
        """Raises BacklogFull; then it was not taken."""
        size = len(data)
        if self._working is None and SMALL <= size <= PIECE and self._consumer.is_writable:
            self.received_bytes += size
            self._taken += size
            self._consumer.process_now(data)
        elif not self._is_closed:
            self._spool.append(data)
            self.received_bytes += size
            self._work(GATHER if size < SMALL else 0.0)

    async def put_action(self, action: Action) -> None:
        """After all audio that came so far. Waits only where thousands of actions wait before it."""
        while len(self._actions) >= MOST_ACTIONS:
            await asyncio.sleep(LOOK)
        if self._is_closed:
            return
        if self._working is None and self._consumer.is_writable:
            await action()
            return
        self._actions.append((self.received_bytes, action))
        self._work(0.0)

    def close(self) -> None:
        """What waits is not wanted any more; more than once does no harm."""
        self._is_closed = True
        self._actions.clear()
        self._spool.close()
        if self._working:
            self._working.cancel()

    def _work(self, delay: float) -> None:
        if self._working is None:
            self._working = start_task(self._hand_on(delay), INBOX)

    async def _hand_on(self, delay: float) -> None:
        try:
            await asyncio.sleep(delay)
            while self._actions or len(self._spool):
                await self._next()
        except Exception as error:
            report_failure(INBOX, error)
            self._consumer.fail(error)
        finally:
            self._working = None

    async def _next(self) -> None:
        until = self._actions[0][0] if self._actions else self.received_bytes
        if self._taken < until:
            data = self._spool.read(min(until - self._taken, PIECE))
            self._taken += len(data)
            await self._consumer.process(data)
        else:
            _, action = self._actions.popleft()
            await action()
