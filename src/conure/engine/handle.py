"""The asyncio face of an engine: streams get numbers and hear their answers; an engine that dies is started again.

    receiver.answered(answer)   on the event loop, in the engine's order
    receiver.restarted()        the engine is a new one that knows of no stream

A stream that was open when the engine died is the receiver's to open again, under the same number; clips too. An engine
whose device fails says so for each of its streams and ends: receivers are not told that, for their streams go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from conure.engine.messages import (
    DEVICE_FAILED,
    ENDS,
    Answer,
    Failed,
    Note,
    Ping,
    Pong,
    Request,
    Turned,
    numbers_of,
)
from conure.engine.plan import ModelCard
from conure.engine.transport import EngineLost, Transport
from conure.errors import ConureError, EngineFailed

__all__ = ["EngineHandle", "Receiver"]

log = logging.getLogger(__name__)

GATHER = 0.004
"""Seconds from one message to the engine to the next: under load it and we wake up for many packets at once."""
PING_EVERY = 2.0
MOST_SILENT = 30.0
"""Seconds without an answer to a ping after which the engine is taken for dead."""
MOST_RESTARTS = 5
"""Within RESTART_SECONDS; an engine that dies more often stays dead."""
RESTART_SECONDS = 120.0


class Receiver(Protocol):
    """A stream or a clip."""

    def answered(self, answer: Answer) -> None: ...

    def restarted(self) -> None: ...

    def lost(self, error: ConureError) -> None:
        """There is no engine any more, nor will there be one."""
        ...


class EngineHandle:
    def __init__(self, transport: Transport, connection: int = 0) -> None:
        """`connection`: where several processes ask one engine, the number of this one, so that theirs differ."""
        self._transport = transport
        self._receivers: dict[int, Receiver] = {}
        self._numbers = numbers_of(connection)
        self._requests: list[Request] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._ponged = 0.0
        self._restarts: deque[float] = deque()
        self.cards: tuple[ModelCard, ...] = ()
        self.models: dict[str, ModelCard] = {}
        """By name, and by the name that was asked for."""
        self.is_ready = False
        self.restarts = 0
        self.on_turn: Callable[[Turned], None] | None = None

    @property
    def process(self) -> int | None:
        """The id of the engine's process, where it has one."""
        return self._transport.process

    async def start(self) -> None:
        """Returns when the engine takes requests. Raises ConureError where it never will."""
        try:
            await self._begin()
        except EngineLost as lost:
            raise EngineFailed(f"{lost} while it started", "see its log") from None
        self._tasks = [asyncio.create_task(work) for work in (self._receive(), self._send(), self._watch())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.is_ready = False
        await self._transport.stop()

    def register(self, receiver: Receiver) -> int:
        """A number for a stream or a clip, until it has ended or was forgotten."""
        number = next(self._numbers)
        self._receivers[number] = receiver
        return number

    def forget(self, number: int) -> None:
        """Its answers are not wanted any more."""
        self._receivers.pop(number, None)

    @property
    def registered(self) -> int:
        return len(self._receivers)

    def ask(self, request: Request) -> None:
        """Asks the engine there is. While there is none nothing is kept: after `restarted` all is asked anew."""
        if self.is_ready:
            self._requests.append(request)
            self._wake.set()

    async def _begin(self) -> None:
        self.cards = await self._transport.start()
        self.models = {card.name: card for card in self.cards} | {card.asked: card for card in self.cards}
        self._ponged = time.monotonic()
        self.is_ready = True

    async def _send(self) -> None:
        """Everything that was asked since the last time goes together; the first request after a pause goes at once."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            requests, self._requests = self._requests, []
            try:
                if requests:
                    await self._transport.send(requests)
            except EngineLost:
                pass  # whoever receives finds out, too, and mends it
            await asyncio.sleep(GATHER)

    async def _receive(self) -> None:
        while True:
            try:
                for message in await self._transport.receive():
                    self._take(message)
            except EngineLost as lost:
                try:
                    await self._restart(lost)
                except ConureError as error:
                    self._give_up(error)
                    return

    def _take(self, message: Answer | Note) -> None:
        if isinstance(message, Pong):
            self._ponged = time.monotonic()
        elif isinstance(message, Turned):
            if self.on_turn:
                self.on_turn(message)
        elif isinstance(message, Failed) and message.code == DEVICE_FAILED:
            pass  # it goes on with the next engine
        elif receiver := self._receivers.get(message.stream):
            if isinstance(message, ENDS):
                self.forget(message.stream)
            receiver.answered(message)

    async def _restart(self, lost: EngineLost) -> None:
        began = time.monotonic()
        self.is_ready = False
        while not self.is_ready:
            self._requests.clear()
            self._count_death()
            log.error("%s; starting it again", lost)
            try:
                await self._begin()
            except EngineLost as again:  # while it started
                lost = again
        log.warning("the engine is back after %.1f s; %d streams go on", time.monotonic() - began, self.registered)
        for receiver in list(self._receivers.values()):
            receiver.restarted()

    def _count_death(self) -> None:
        """Raises EngineFailed where there were too many."""
        now = time.monotonic()
        self.restarts += 1
        self._restarts.append(now)
        while now - self._restarts[0] > RESTART_SECONDS:
            self._restarts.popleft()
        if len(self._restarts) > MOST_RESTARTS:
            raise EngineFailed(f"the engine died {len(self._restarts)} times in {RESTART_SECONDS:g} s", "see its log")

    def _give_up(self, error: ConureError) -> None:
        log.critical("there is no engine any more: %s", error.message)
        receivers, self._receivers = list(self._receivers.values()), {}
        for receiver in receivers:
            receiver.lost(error)

    async def _watch(self) -> None:
        """Kills an engine that hangs."""
        while True:
            await asyncio.sleep(PING_EVERY)
            if not self.is_ready:
                continue
            if time.monotonic() - self._ponged > MOST_SILENT:
                log.error("the engine has not answered for %g s", MOST_SILENT)
                self._transport.kill()
                self._ponged = time.monotonic()
            self.ask(Ping(next(self._numbers)))
