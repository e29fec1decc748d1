"""Where an engine runs: a thread of this process, or a process of its own; both take and give the same messages."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import threading
import time
from typing import Protocol

from conure import errors
from conure import log as logs
from conure.engine.frames import frame, read_frame
from conure.engine.messages import Answer, Note, Request
from conure.engine.plan import ModelCard, Plan
from conure.engine.ring import SampleRing
from conure.engine.wire import DEVICE_FAILED_EXIT, Broken, FromEngine, NoRoom, Ready, RequestWriter, answer_reader
from conure.errors import ConureError, EngineFailed

__all__ = ["EngineLost", "ProcessTransport", "ThreadTransport", "Transport"]

RING_SAMPLES = 2**24
"""17 minutes of audio, 64 MiB: what all streams together may have on the way."""
RETRY = 0.005
END_PATIENCE = 5.0
"""Seconds that a process is given to end by itself."""


class EngineLost(Exception):
    """The engine is no longer there; its text says what became of it."""

    def __init__(self, text: str = "the engine died") -> None:
        super().__init__(text)


class Transport(Protocol):
    async def start(self) -> tuple[ModelCard, ...]:
        """Starts an engine and waits until it takes requests. Raises ConureError where it never will."""
        ...

    async def send(self, requests: list[Request]) -> None:
        """Waits where the engine is not keeping up. Raises EngineLost."""
        ...

    async def receive(self) -> list[Answer | Note]:
        """What the engine said together. Raises EngineLost."""
        ...

    async def stop(self) -> None: ...

    def kill(self) -> None:
        """For an engine that does not answer."""
        ...


class ThreadTransport:
    """For use as a library, and in tests."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def start(self) -> tuple[ModelCard, ...]:
        # They load torch, which the other one never does.
        from conure.engine.device import device_failed, told  # noqa: PLC0415
        from conure.engine.startup import start_engine  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[list[Answer | Note] | None] = asyncio.Queue()

        def deliver(answers: list[Answer | Note]) -> None:
            loop.call_soon_threadsafe(self._told.put_nowait, answers)

        def run() -> None:
            try:
                self._engine.run()
            finally:
                loop.call_soon_threadsafe(self._told.put_nowait, None)

        try:
            self._engine, cards = await asyncio.to_thread(start_engine, self._plan, deliver)
        except RuntimeError as error:
            if not device_failed(error):
                raise
            raise EngineFailed(f"the device failed: {told(error)}", "only a new process can use it again") from error
        self._thread = threading.Thread(target=run, name="conure-engine")
        self._thread.start()
        return tuple(cards)

    async def send(self, requests: list[Request]) -> None:
        for request in requests:
            self._engine.ask(request)

    async def receive(self) -> list[Answer | Note]:
        told = await self._told.get()
        if told is None:
            raise EngineLost
        return told

    async def stop(self) -> None:
        self._engine.stop()
        await asyncio.to_thread(self._thread.join)

    def kill(self) -> None:
        """A thread cannot be killed; it ends after its turn."""
        self._engine.stop()


def _work(plan: Plan, end: socket.socket, ring: str, logged: tuple[logs.Detail, bool], begun: float) -> None:
    from conure.engine.worker import work  # noqa: PLC0415  it loads torch, which this side never does

    work(plan, end, ring, logged, begun)


class ProcessTransport:
    """For servers: what crashes there can be started again, and its computing does not hold up this process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def start(self) -> tuple[ModelCard, ...]:
        ours, theirs = socket.socketpair()
        self._ring = SampleRing.create(RING_SAMPLES)
        self._process = multiprocessing.get_context("spawn").Process(
            target=_work,
            args=(self._plan, theirs, self._ring.name, logs.configured(), time.time()),
            name="conure-engine",
        )
        self._process.start()
        theirs.close()
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=2**22)
        self._requests, self._answers = RequestWriter(self._ring), answer_reader()
        return await self._ready()

    async def _ready(self) -> tuple[ModelCard, ...]:
        match await self._receive():
            case [Ready(cards)]:
                return cards
            case [Broken(name, message, hint)]:
                await self.stop()
                kind: type[ConureError] = getattr(errors, name, EngineFailed)
                raise kind(message, hint)
        raise EngineLost

    async def send(self, requests: list[Request]) -> None:
        try:
            self._writer.write(frame(self._requests.encode(requests)))
            await self._writer.drain()
        except ConnectionError:
            raise EngineLost from None
        except NoRoom:
            await self._send_slowly(requests)

    async def _send_slowly(self, requests: list[Request]) -> None:
        """In halves, and what cannot be halved when there is room for it."""
        if not self._process.is_alive():
            raise EngineLost
        if len(requests) == 1:
            await asyncio.sleep(RETRY)
        middle = len(requests) // 2
        for half in (requests[:middle], requests[middle:]):
            if half:
                await self.send(half)

    async def receive(self) -> list[Answer | Note]:
        return [message for message in await self._receive() if not isinstance(message, Ready | Broken)]

    async def _receive(self) -> list[FromEngine]:
        payload = await read_frame(self._reader)
        if payload is None:
            await self.stop()
            raise EngineLost("the engine's device failed" if self._failed else "the engine died")
        return self._answers.decode(payload)

    @property
    def _failed(self) -> bool:
        """Whether the process ended because its device did."""
        return self._process.exitcode == DEVICE_FAILED_EXIT

    async def stop(self) -> None:
        """The process ends when its socket is closed; what does not is killed."""
        self._writer.close()
        await asyncio.to_thread(self._process.join, END_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            await asyncio.to_thread(self._process.join)
        self._ring.close()

    def kill(self) -> None:
        self._process.kill()
