"""The asyncio client of an engine: numbers streams, dispatches their events, and restarts an engine that died.

    receiver.on_event(event)    on the event loop, in the engine's order
    receiver.on_restart()        the engine is a new one that has no streams

A stream that was open when the engine died must be opened again by its receiver, under the same number; so must a clip.
An engine whose device fails sends DEVICE_FAILED for each stream before it exits. Receivers do not get these events,
because their streams continue on the next engine.

The client depends on its four tasks. When one of them fails, all receivers and `wait_for_failure` get the error, and
the process is expected to exit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from conure.background import report_failure, start_critical_task
from conure.engine.ipc.engine_socket import EngineDisconnected, EngineHung
from conure.engine.ipc.transport import Transport
from conure.engine.messages import (
    DEVICE_FAILED,
    FINAL_EVENTS,
    Cancel,
    CapacityChanged,
    EngineEvent,
    Failed,
    Pong,
    Request,
    StepTaken,
    StreamEvent,
    ping_for,
    stream_numbers,
)
from conure.engine.plan import ModelInfo
from conure.engine.watchdog import MAX_MISSED, Watchdog
from conure.errors import ConureError, EngineFailed
from conure.event_loop import suspended_seconds

__all__ = ["EngineClient", "Receiver"]

log = logging.getLogger(__name__)

SEND_INTERVAL = 0.004
"""Seconds between two sends: under load, one wake-up of both processes then carries many packets."""
PING_INTERVAL = 2.0
SUSPEND_CHECK_INTERVAL = 0.5
"""Seconds between two checks whether this process was suspended."""


class Receiver(Protocol):
    """A stream or a clip."""

    def on_event(self, answer: StreamEvent) -> None: ...

    def on_restart(self) -> None: ...

    def on_failure(self, error: ConureError) -> None:
        """The engine has failed and will not be restarted."""
        ...


class EngineClient:
    def __init__(self, transport: Transport, connection: int = 0) -> None:
        """`connection`: number of this process, where several share an engine, so that their stream numbers differ."""
        self._transport = transport
        self._receivers: dict[int, Receiver] = {}
        self._numbers, self._ping = stream_numbers(connection), ping_for(connection)
        self._requests: list[Request] = []
        self._has_requests = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._watchdog = Watchdog()
        self._is_open = False
        """An engine accepts requests."""
        self._has_answered, self._has_failed = asyncio.Event(), asyncio.Event()
        self._failure: ConureError | None = None
        self.model_infos: tuple[ModelInfo, ...] = ()
        self.models_by_name: dict[str, ModelInfo] = {}
        """By name, and by the name in the plan."""
        self.restarts = 0
        self.resumed_at = 0.0
        """The clock when the engine last became responsive: after a restart, or after the engine or this process was
        held up."""
        self._next_check = float("inf")
        """The clock when the next check for suspension is due."""
        self.on_step: Callable[[StepTaken], None] | None = None

    @property
    def process_id(self) -> int | None:
        """Id of the engine process, if there is one."""
        return self._transport.process_id

    @property
    def is_ready(self) -> bool:
        """Whether an engine runs and responds."""
        return self._is_open and self._watchdog.is_responsive

    async def start(self) -> None:
        """Returns when the engine responds. Raises ConureError when it cannot start.

        An engine that dies during its start is an error at once. One that hangs is started again: what it waited for
        may be over.
        """
        try:
            await self._start_engine()
        except EngineHung as error:
            await self._retry_start(error)
        except EngineDisconnected as error:
            raise EngineFailed(f"{error} while it started", "see its log") from None
        tasks = {
            "receiving the engine's answers": self._receive,
            "sending requests to the engine": self._send,
            "watching the engine": self._watch_engine,
            "watching this process": self._watch_process,
        }
        self._tasks = [start_critical_task(task(), name, self._fail) for name, task in tasks.items()]
        await self._has_answered.wait()
        if self._failure:
            await self.stop()
            raise self._failure

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._is_open = False
        await self._transport.stop()

    async def wait_for_failure(self) -> ConureError:
        """Returns the error once the engine has failed and will not be restarted."""
        await self._has_failed.wait()
        assert self._failure
        return self._failure

    def register(self, receiver: Receiver) -> int:
        """A number for a stream or a clip; unregistered at its last event or by `unregister`."""
        number = next(self._numbers)
        self._receivers[number] = receiver
        return number

    def unregister(self, number: int) -> None:
        """Discards further events of that number."""
        self._receivers.pop(number, None)

    @property
    def receiver_count(self) -> int:
        return len(self._receivers)

    def send(self, request: Request) -> None:
        """Queues a request. Without an engine it is dropped: receivers repeat their requests in `on_restart`."""
        if self._is_open:
            self._requests.append(request)
            self._has_requests.set()

    async def _start_engine(self) -> None:
        self._watchdog.engine_started()
        self._set_models(await self._transport.start())
        self._is_open = True
        self.send(self._ping)

    def _set_models(self, models: Iterable[ModelInfo]) -> None:
        self.model_infos = tuple(models)
        self.models_by_name = {info.name: info for info in self.model_infos} | {
            info.requested_name: info for info in self.model_infos
        }

    async def _send(self) -> None:
        """Sends all queued requests together; the first one after an idle interval is sent at once."""
        while True:
            await self._has_requests.wait()
            self._has_requests.clear()
            requests, self._requests = self._requests, []
            try:
                if requests:
                    await self._transport.send(requests)
            except EngineDisconnected:
                pass  # `_receive` finds out, too, and restarts the engine
            await asyncio.sleep(SEND_INTERVAL)

    async def _receive(self) -> None:
        """Raises EngineFailed, or the error with which a new engine fails to start."""
        while True:
            try:
                messages = await self._transport.receive()
            except EngineDisconnected as error:
                await self._restart(error)
                continue
            now = time.monotonic()
            if not self._watchdog.is_responsive or suspended_seconds(self._next_check, now):
                self.resumed_at = now
            self._watchdog.messages_received(messages)
            self._has_answered.set()
            for message in messages:
                self._dispatch(message)

    def _dispatch(self, message: StreamEvent | EngineEvent) -> None:
        if isinstance(message, Pong):
            pass
        elif isinstance(message, StepTaken):
            if self.on_step:
                self.on_step(message)
        elif isinstance(message, CapacityChanged):
            self._set_models(message.apply_to(info) for info in self.model_infos)
        elif isinstance(message, Failed) and message.code == DEVICE_FAILED:
            pass  # the stream continues on the next engine
        elif receiver := self._receivers.get(message.stream):
            if isinstance(message, FINAL_EVENTS):
                self.unregister(message.stream)
            try:
                receiver.on_event(message)
            except Exception as error:
                self._end_receiver(message.stream, receiver, error)

    def _end_receiver(self, number: int, receiver: Receiver, error: Exception) -> None:
        """Ends a receiver that raised an error; the others continue."""
        failure = report_failure("stream", error)
        self.send(Cancel(number))
        self.unregister(number)
        try:
            receiver.on_failure(failure)
        except Exception as next_error:
            report_failure("stream", next_error)

    async def _restart(self, error: EngineDisconnected) -> None:
        started_at = time.monotonic()
        self._is_open = False
        await self._retry_start(error)
        seconds = time.monotonic() - started_at
        log.warning("the engine was restarted in %.1f s; %d streams continue", seconds, self.receiver_count)
        for number, receiver in list(self._receivers.items()):
            try:
                receiver.on_restart()
            except Exception as receiver_error:
                self._end_receiver(number, receiver, receiver_error)

    async def _retry_start(self, error: EngineDisconnected) -> None:
        """Starts engines until one accepts requests. Raises EngineFailed after too many failures in a row."""
        last_error: EngineDisconnected | ConureError = error
        while not self._is_open:
            self._requests.clear()
            if not self._watchdog.may_start:
                failures = f"none of the last {self._watchdog.starts} engines said a word"
                raise EngineFailed(f"{failures}; of the last one: {last_error}", "see the log")
            self.restarts += 1
            log.error("%s; starting it again", last_error)
            await asyncio.sleep(self._watchdog.start_delay)
            try:
                await self._start_engine()
            except (EngineDisconnected, ConureError) as start_error:
                last_error = start_error

    def _fail(self, error: ConureError) -> None:
        if self._failure:
            return
        self._failure, self._is_open = error, False
        for task in self._tasks:
            task.cancel()
        self._has_answered.set()
        self._has_failed.set()
        receivers, self._receivers = list(self._receivers.values()), {}
        for receiver in receivers:
            try:
                receiver.on_failure(error)
            except Exception as receiver_error:
                report_failure("stream", receiver_error)

    async def _watch_process(self) -> None:
        """Notes when this process was suspended, so that the delay does not count as a stream's lag."""
        while True:
            self._next_check = time.monotonic() + SUSPEND_CHECK_INTERVAL
            await asyncio.sleep(SUSPEND_CHECK_INTERVAL)
            now = time.monotonic()
            if seconds := suspended_seconds(self._next_check, now):
                self.resumed_at = now
                log.warning("this process was suspended for %.1f s", seconds)

    async def _watch_engine(self) -> None:
        """Pings the engine, and kills it when it hangs."""
        while True:
            await asyncio.sleep(PING_INTERVAL)
            if self._is_open:
                if self._watchdog.ping_missed():
                    log.error("the engine did not respond to the last %d pings: killing it", MAX_MISSED)
                    self._transport.kill()
                self.send(self._ping)
