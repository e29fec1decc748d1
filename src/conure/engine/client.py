"""The asyncio face of an engine: streams get numbers and hear their answers; an engine that dies is started again.

    receiver.answered(answer)   on the event loop, in the engine's order
    receiver.restarted()        the engine is a new one that knows of no stream

A stream that was open when the engine died is the receiver's to open again, under the same number; clips too. An engine
whose device fails says so for each of its streams and ends: receivers are not told that, for their streams go on.

Nothing goes on without the three tasks here. Where one of them ends, receivers are told that there is no engine any
more, and so is whoever waits for `until_failed`, to end the process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from conure.background import report_failure, start_critical_task
from conure.engine.ipc.line import EngineDisconnected, EngineHung
from conure.engine.ipc.transport import Transport
from conure.engine.messages import (
    DEVICE_FAILED,
    ENDS,
    Answer,
    Cancel,
    Failed,
    Note,
    Pong,
    QueueRoom,
    Request,
    StepTaken,
    numbers_of,
    ping_of,
)
from conure.engine.plan import ModelInfo
from conure.engine.watchdog import MOST_MISSED, Watchdog
from conure.errors import ConureError, EngineFailed
from conure.event_loop import held_up

__all__ = ["EngineClient", "Receiver"]

log = logging.getLogger(__name__)

GATHER = 0.004
"""Seconds from one message to the engine to the next: under load it and we wake up for many packets at once."""
PING_EVERY = 2.0
PULSE = 0.5
"""Seconds from one look at whether this process runs to the next."""


class Receiver(Protocol):
    """A stream or a clip."""

    def answered(self, answer: Answer) -> None: ...

    def restarted(self) -> None: ...

    def lost(self, error: ConureError) -> None:
        """There is no engine any more, nor will there be one."""
        ...


class EngineClient:
    def __init__(self, transport: Transport, connection: int = 0) -> None:
        """`connection`: where several processes ask one engine, the number of this one, so that theirs differ."""
        self._transport = transport
        self._receivers: dict[int, Receiver] = {}
        self._numbers, self._ping = numbers_of(connection), ping_of(connection)
        self._requests: list[Request] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._watchdog = Watchdog()
        self._is_open = False
        """There is an engine that takes requests."""
        self._answered, self._over = asyncio.Event(), asyncio.Event()
        """The engine said something; nothing will ever be said again."""
        self._failure: ConureError | None = None
        self.cards: tuple[ModelInfo, ...] = ()
        self.models: dict[str, ModelInfo] = {}
        """By name, and by the name that was asked for."""
        self.restarts = 0
        self.back_since = 0.0
        """The clock when the engine last came back: a new one, or one that was held up and said nothing, as it does
        where this process was held up itself."""
        self._pulse = float("inf")
        """The clock at the next look at whether this process runs."""
        self.on_turn: Callable[[StepTaken], None] | None = None

    @property
    def process(self) -> int | None:
        """The id of the engine's process, where it has one."""
        return self._transport.process

    @property
    def is_ready(self) -> bool:
        """Whether there is an engine and it answers."""
        return self._is_open and self._watchdog.answers

    async def start(self) -> None:
        """Returns when the engine answers. Raises ConureError where it never will.

        One that dies while it starts is told of at once; one that hangs may have waited for something that is over.
        """
        try:
            await self._begin()
        except EngineHung as hung:
            await self._begin_again(hung)
        except EngineDisconnected as lost:
            raise EngineFailed(f"{lost} while it started", "see its log") from None
        works = {
            "receiving the engine's answers": self._receive,
            "sending requests to the engine": self._send,
            "watching the engine": self._watch,
            "watching this process": self._feel,
        }
        self._tasks = [start_critical_task(work(), name, self._give_up) for name, work in works.items()]
        await self._answered.wait()
        if self._failure:
            await self.stop()
            raise self._failure

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._is_open = False
        await self._transport.stop()

    async def until_failed(self) -> ConureError:
        """Returns when there is no engine any more, nor will there be one."""
        await self._over.wait()
        assert self._failure
        return self._failure

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
        if self._is_open:
            self._requests.append(request)
            self._wake.set()

    async def _begin(self) -> None:
        self._watchdog.begin()
        self._know(await self._transport.start())
        self._is_open = True
        self.ask(self._ping)

    def _know(self, cards: Iterable[ModelInfo]) -> None:
        self.cards = tuple(cards)
        self.models = {card.name: card for card in self.cards} | {card.asked: card for card in self.cards}

    async def _send(self) -> None:
        """Everything that was asked since the last time goes together; the first request after a pause goes at once."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            requests, self._requests = self._requests, []
            try:
                if requests:
                    await self._transport.send(requests)
            except EngineDisconnected:
                pass  # whoever receives finds out, too, and mends it
            await asyncio.sleep(GATHER)

    async def _receive(self) -> None:
        """Raises EngineFailed, or what a new engine says of why it cannot start."""
        while True:
            try:
                messages = await self._transport.receive()
            except EngineDisconnected as lost:
                await self._restart(lost)
                continue
            now = time.monotonic()
            if not self._watchdog.answers or held_up(self._pulse, now):
                self.back_since = now
            self._watchdog.heard(messages)
            self._answered.set()
            for message in messages:
                self._take(message)

    def _take(self, message: Answer | Note) -> None:
        if isinstance(message, Pong):
            pass
        elif isinstance(message, StepTaken):
            if self.on_turn:
                self.on_turn(message)
        elif isinstance(message, QueueRoom):
            self._know(message.on(card) for card in self.cards)
        elif isinstance(message, Failed) and message.code == DEVICE_FAILED:
            pass  # it goes on with the next engine
        elif receiver := self._receivers.get(message.stream):
            if isinstance(message, ENDS):
                self.forget(message.stream)
            try:
                receiver.answered(message)
            except Exception as error:
                self._end(message.stream, receiver, error)

    def _end(self, number: int, receiver: Receiver, error: Exception) -> None:
        """A receiver that failed: it ends, and no other one."""
        told = report_failure("stream", error)
        self.ask(Cancel(number))
        self.forget(number)
        try:
            receiver.lost(told)
        except Exception as again:
            report_failure("stream", again)

    async def _restart(self, lost: EngineDisconnected) -> None:
        began = time.monotonic()
        self._is_open = False
        await self._begin_again(lost)
        log.warning("the engine is back after %.1f s; %d streams go on", time.monotonic() - began, self.registered)
        for number, receiver in list(self._receivers.items()):
            try:
                receiver.restarted()
            except Exception as error:
                self._end(number, receiver, error)

    async def _begin_again(self, lost: EngineDisconnected) -> None:
        """Until an engine takes requests. Raises EngineFailed where none of several does."""
        last: EngineDisconnected | ConureError = lost
        while not self._is_open:
            self._requests.clear()
            if not self._watchdog.may_start:
                starts = f"none of the last {self._watchdog.starts} engines said a word"
                raise EngineFailed(f"{starts}; of the last one: {last}", "see the log")
            self.restarts += 1
            log.error("%s; starting it again", last)
            await asyncio.sleep(self._watchdog.pause)
            try:
                await self._begin()
            except (EngineDisconnected, ConureError) as again:  # while it started
                last = again

    def _give_up(self, error: ConureError) -> None:
        if self._failure:
            return
        self._failure, self._is_open = error, False
        for task in self._tasks:
            task.cancel()
        self._answered.set()
        self._over.set()
        receivers, self._receivers = list(self._receivers.values()), {}
        for receiver in receivers:
            try:
                receiver.lost(error)
            except Exception as again:
                report_failure("stream", again)

    async def _feel(self) -> None:
        """Nothing that was late because this process was held up is held against a stream."""
        while True:
            self._pulse = time.monotonic() + PULSE
            await asyncio.sleep(PULSE)
            now = time.monotonic()
            if seconds := held_up(self._pulse, now):
                self.back_since = now
                log.warning("this process was held up for %.1f s", seconds)

    async def _watch(self) -> None:
        """Kills an engine that hangs."""
        while True:
            await asyncio.sleep(PING_EVERY)
            if self._is_open:
                if self._watchdog.look():
                    log.error("the engine has answered none of the last %d pings; it is killed", MOST_MISSED)
                    self._transport.kill()
                self.ask(self._ping)
