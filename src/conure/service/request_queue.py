"""Queue of a stream's input, in order: audio as bytes, and actions between them.

    put_audio, put_action ──> synchronously, if the queue is empty and the consumer is writable
        └─────────────────> spool ──> a task that passes one after the other to the consumer when it is writable

Senders are never blocked, so a connection is read while audio waits. Tiny packets are merged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from conure.audio.spool import Spool, SpoolSpace
from conure.background import report_failure, start_task

__all__ = ["RequestConsumer", "RequestQueue"]

TASK = "inbox"
"""Name of the queue's task."""
MIN_PACKET = 80
"""Bytes; smaller packets wait to be merged: 2.5 ms of PCM at 16 kHz."""
MERGE_SECONDS = 0.005
"""Time that they wait."""
MAX_BLOCK = 2**16
"""Bytes that are passed on at once."""
MAX_ACTIONS = 10_000
"""Actions that may wait."""
POLL_SECONDS = 0.05

Action = Callable[[], Awaitable[None]]


class RequestConsumer(Protocol):
    @property
    def is_writable(self) -> bool:
        """Whether `process` and actions would run without waiting."""
        ...

    def process_now(self, data: bytes) -> None:
        """As `process`, if it is writable."""
        ...

    async def process(self, data: bytes) -> None:
        """Waits until it is writable, and while the audio is decoded."""
        ...

    def fail(self, error: Exception) -> None:
        """Called when the queue is broken."""
        ...


class RequestQueue:
    def __init__(self, consumer: RequestConsumer, space: SpoolSpace) -> None:
        self.received_bytes = 0
        """Audio received."""
        self._consumer = consumer
        self._spool = Spool(space)
        self._actions: deque[tuple[int, Action]] = deque()
        """(bytes of audio before it, action)"""
        self._passed_bytes = 0
        """Audio passed to the consumer."""
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_empty(self) -> bool:
        """Everything was passed on."""
        return self._task is None

    def put_audio(self, data: bytes) -> None:
        """Raises BacklogFull; then the audio was not accepted."""
        size = len(data)
        if self._task is None and MIN_PACKET <= size <= MAX_BLOCK and self._consumer.is_writable:
            self.received_bytes += size
            self._passed_bytes += size
            self._consumer.process_now(data)
        elif not self._is_closed:
            self._spool.append(data)
            self.received_bytes += size
            self._start_task(MERGE_SECONDS if size < MIN_PACKET else 0.0)

    async def put_action(self, action: Action) -> None:
        """Runs after all audio received so far. Waits only if thousands of actions are queued."""
        while len(self._actions) >= MAX_ACTIONS:
            await asyncio.sleep(POLL_SECONDS)
        if self._is_closed:
            return
        if self._task is None and self._consumer.is_writable:
            await action()
            return
        self._actions.append((self.received_bytes, action))
        self._start_task(0.0)

    def close(self) -> None:
        """Drops what is queued; idempotent."""
        self._is_closed = True
        self._actions.clear()
        self._spool.close()
        if self._task:
            self._task.cancel()

    def _start_task(self, delay: float) -> None:
        if self._task is None:
            self._task = start_task(self._run(delay), TASK)

    async def _run(self, delay: float) -> None:
        try:
            await asyncio.sleep(delay)
            while self._actions or len(self._spool):
                await self._pass_next()
        except Exception as error:
            report_failure(TASK, error)
            self._consumer.fail(error)
        finally:
            self._task = None

    async def _pass_next(self) -> None:
        end = self._actions[0][0] if self._actions else self.received_bytes
        if self._passed_bytes < end:
            data = self._spool.read(min(end - self._passed_bytes, MAX_BLOCK))
            self._passed_bytes += len(data)
            await self._consumer.process(data)
        else:
            _, action = self._actions.popleft()
            await action()
