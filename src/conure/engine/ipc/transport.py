"""Where an engine runs: a thread of this process, a process that it starts, or one that somebody else started.

All take and give the same messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import signal
import socket
import time
from pathlib import Path
from typing import Protocol

from conure import log as logs
from conure.background import thread
from conure.engine.ipc.line import EngineDisconnected, EngineHung, Line
from conure.engine.ipc.sample_ring import SampleRing
from conure.engine.ipc.wire import (
    DEVICE_FAILED_EXIT,
    Connect,
)
from conure.engine.messages import Answer, Note, Request
from conure.engine.plan import ModelInfo, Plan
from conure.errors import ConureError, EngineFailed

__all__ = [
    "RING_SAMPLES",
    "ProcessTransport",
    "SocketTransport",
    "ThreadTransport",
    "Transport",
]

log = logging.getLogger(__name__)

RING_SAMPLES = 2**24
"""17 minutes of audio, 64 MiB: what all streams together may have on the way."""
END_PATIENCE = 5.0
"""Seconds that a process is given to end by itself."""
START_SECONDS = 900.0
"""For each step of an engine's start, unless told otherwise: large models are converted when they are first used."""


class Transport(Protocol):
    @property
    def process(self) -> int | None:
        """The id of the process that the engine runs in; None before it has one."""
        ...

    async def start(self) -> tuple[ModelInfo, ...]:
        """Starts an engine and waits until it takes requests.

        Raises ConureError where it never will, EngineLost where it died, EngineHung where it took too long.
        """
        ...

    async def send(self, requests: list[Request]) -> None:
        """Waits where the engine is not keeping up. Raises EngineLost."""
        ...

    async def receive(self) -> list[Answer | Note]:
        """What the engine said together. Raises EngineLost."""
        ...

    async def stop(self) -> None: ...

    def kill(self) -> None:
        """For an engine that does not answer: whoever receives finds it lost."""
        ...


class ThreadTransport:
    """For use as a library, and in tests."""

    process: int | None = None
    """It has none of its own."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def start(self) -> tuple[ModelInfo, ...]:
        # They load networks, which the other ones never do.
        from conure.engine.backends.device import error_summary, is_device_failure  # noqa: PLC0415
        from conure.engine.startup import start_engine  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[list[Answer | Note] | None] = asyncio.Queue()

        def deliver(answers: list[Answer | Note] | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is there to hear it
                loop.call_soon_threadsafe(self._told.put_nowait, answers)

        def run() -> None:
            try:
                self._engine.run()
            finally:
                deliver(None)

        try:
            self._engine, cards = await asyncio.to_thread(start_engine, self._plan, deliver)
        except RuntimeError as error:
            if not is_device_failure(error):
                raise
            raise EngineFailed(
                f"the device failed: {error_summary(error)}", "only a new process can use it again"
            ) from error
        self._thread = thread(run, "engine", daemon=False)
        return tuple(cards)

    async def send(self, requests: list[Request]) -> None:
        for request in requests:
            self._engine.ask(request)

    async def receive(self) -> list[Answer | Note]:
        told = await self._told.get()
        if told is None:
            raise EngineDisconnected
        return told

    async def stop(self) -> None:
        self._engine.stop()
        await asyncio.to_thread(self._thread.join)

    def kill(self) -> None:
        """A thread cannot be killed; it ends after its turn."""
        self._engine.stop()


def _work(
    plan: Plan,
    end: socket.socket,
    ring: str,
    logged: tuple[logs.Detail, bool],
    begun: float,
    listener: socket.socket | None,
) -> None:
    from conure.engine.main import work  # noqa: PLC0415  it loads networks, which this side never does

    work(plan, end, ring, logged, begun, listener)


class ProcessTransport:
    """For servers: what crashes there can be started again, and its computing does not hold up this process.

    Who connects to `listener` may ask the engine as well; who does while there is none waits for the next one.
    """

    def __init__(
        self,
        plan: Plan,
        listener: socket.socket | None = None,
        ring_samples: int = RING_SAMPLES,
        start_seconds: float = START_SECONDS,
    ) -> None:
        """`start_seconds`: the longest that one step of the engine's start may take."""
        self._plan = plan
        self._start_seconds = start_seconds
        self._listener = listener
        self._ring_samples = ring_samples
        self._line: Line | None = None
        self._process: multiprocessing.process.BaseProcess | None = None
        self._was_ready = False
        self.process: int | None = None

    async def start(self) -> tuple[ModelInfo, ...]:
        self._line, self._was_ready = None, False
        try:
            line = self._line = await self._begin()
        except OSError as error:
            raise EngineDisconnected(f"the engine's process cannot be started: {error.strerror or error}") from error
        try:
            ready = await line.ready(self._start_seconds)
            self._was_ready = True
            return ready.cards
        except EngineHung:
            self.kill()
            await self._end()
            raise
        except EngineDisconnected as lost:
            raise await self._mourned(lost) from None
        except ConureError:
            await self.stop()
            raise

    async def _begin(self) -> Line:
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undone:
            undone.callback(ours.close)
            ring = SampleRing.create(self._ring_samples)
            undone.callback(ring.close)
            self._process = multiprocessing.get_context("spawn").Process(
                target=_work,
                args=(self._plan, theirs, ring.name, logs.current_config(), time.time(), self._listener),
                name="conure-engine",
            )
            self._process.start()
            undone.pop_all()
        self.process = self._process.pid
        return await Line.over(ours, ring)

    async def send(self, requests: list[Request]) -> None:
        if self._line is None:
            raise EngineDisconnected
        await self._line.send(requests)

    async def receive(self) -> list[Answer | Note]:
        if self._line is None:
            raise EngineDisconnected
        try:
            return await self._line.receive()
        except EngineDisconnected as lost:
            raise await self._mourned(lost) from None

    async def _mourned(self, lost: EngineDisconnected) -> EngineDisconnected:
        """What became of it."""
        await self._end()
        assert self._process
        if self._process.exitcode == DEVICE_FAILED_EXIT:
            return EngineDisconnected("the engine's device failed")
        return EngineDisconnected(f"{lost} ({_fate(self._process.exitcode)})")

    async def stop(self) -> None:
        await self._end()
        if self._was_ready and self._process and self._process.exitcode:
            log.warning("the engine did not end in good order: %s", _fate(self._process.exitcode))

    async def _end(self) -> None:
        """The process ends when its socket is closed; what does not is killed."""
        if self._line:
            self._line.hang_up()
        if self._process and self._process.pid:
            await asyncio.to_thread(self._process.join, END_PATIENCE)
            if self._process.is_alive():
                self._process.kill()
                await asyncio.to_thread(self._process.join)
        if self._line:
            self._line.close()

    def kill(self) -> None:
        if self._process and self._process.pid:
            self._process.kill()


def _fate(exit_code: int | None) -> str:
    if exit_code is not None and -exit_code in signal.valid_signals():
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


class SocketTransport:
    """For one of several processes that ask one engine, which somebody else starts, and starts again."""

    def __init__(self, path: Path, connection: int, ring_samples: int = RING_SAMPLES) -> None:
        """`connection`: number of this one, which no other has."""
        self._path = path
        self._connection = connection
        self._ring_samples = ring_samples
        self._line: Line | None = None
        self.process: int | None = None

    async def start(self) -> tuple[ModelInfo, ...]:
        end = socket.socket(socket.AF_UNIX)
        try:
            end.connect(str(self._path))
        except OSError:
            end.close()
            raise EngineFailed("there is no engine any more", "see the log") from None
        ring = SampleRing.create(self._ring_samples)
        line = self._line = await Line.over(end, ring)
        try:
            line.greet(Connect(self._connection, ring.name))
            ready = await line.ready()
        except BaseException:
            await self.stop()
            raise
        self.process = ready.process
        return ready.cards

    async def send(self, requests: list[Request]) -> None:
        if self._line is None:
            raise EngineDisconnected
        await self._line.send(requests)

    async def receive(self) -> list[Answer | Note]:
        if self._line is None:
            raise EngineDisconnected
        try:
            return await self._line.receive()
        except EngineDisconnected:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self._line:
            self._line.close()

    def kill(self) -> None:
        """This one's connection alone: whether the engine itself is dead is for whoever started it to find out."""
        if self._line:
            self._line.abort()
