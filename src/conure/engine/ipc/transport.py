"""Where an engine runs: in a thread, in a child process, or in a process that another process started.

All transports carry the same messages.
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
from conure.background import spawn_thread
from conure.engine.ipc.engine_socket import EngineDisconnected, EngineHung, EngineSocket
from conure.engine.ipc.sample_ring import SampleRing
from conure.engine.ipc.wire import (
    DEVICE_FAILED_EXIT,
    Connect,
)
from conure.engine.messages import EngineEvent, Request, StreamEvent
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
"""17 minutes of audio, 64 MiB: the audio of all streams that the engine has not read yet."""
EXIT_TIMEOUT = 5.0
"""Seconds until an engine process that does not exit is killed."""
START_SECONDS = 900.0
"""Default limit of one step of an engine's start: large models are converted on first use."""


class Transport(Protocol):
    @property
    def process_id(self) -> int | None:
        """Id of the engine process; None before it has started."""
        ...

    async def start(self) -> tuple[ModelInfo, ...]:
        """Starts an engine and waits until it accepts requests.

        Raises ConureError when the start failed, EngineDisconnected when the engine died, and EngineHung when a step of
        the start took too long.
        """
        ...

    async def send(self, requests: list[Request]) -> None:
        """Waits while the engine does not keep up. Raises EngineDisconnected."""
        ...

    async def receive(self) -> list[StreamEvent | EngineEvent]:
        """The messages that the engine sent together. Raises EngineDisconnected."""
        ...

    async def stop(self) -> None: ...

    def kill(self) -> None:
        """Kills an engine that does not respond; `receive` then raises EngineDisconnected."""
        ...


class ThreadTransport:
    """Runs the engine in a thread: for use as a library, and in tests."""

    process_id: int | None = None
    """The engine runs on a thread of this process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def start(self) -> tuple[ModelInfo, ...]:
        # These imports load networks, which the other transports must not do.
        from conure.engine.backends.device import error_summary, is_device_failure  # noqa: PLC0415
        from conure.engine.startup import start_engine  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        self._received: asyncio.Queue[list[StreamEvent | EngineEvent] | None] = asyncio.Queue()

        def deliver(messages: list[StreamEvent | EngineEvent] | None) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop was closed
                loop.call_soon_threadsafe(self._received.put_nowait, messages)

        def run() -> None:
            try:
                self._engine.run()
            finally:
                deliver(None)

        try:
            self._engine, models = await asyncio.to_thread(start_engine, self._plan, deliver)
        except RuntimeError as error:
            if not is_device_failure(error):
                raise
            raise EngineFailed(
                f"the device failed: {error_summary(error)}", "restart this process to use it again"
            ) from error
        self._thread = spawn_thread(run, "engine", daemon=False)
        return tuple(models)

    async def send(self, requests: list[Request]) -> None:
        for request in requests:
            self._engine.submit(request)

    async def receive(self) -> list[StreamEvent | EngineEvent]:
        messages = await self._received.get()
        if messages is None:
            raise EngineDisconnected
        return messages

    async def stop(self) -> None:
        self._engine.stop()
        await asyncio.to_thread(self._thread.join)

    def kill(self) -> None:
        """A thread cannot be killed: the engine stops after its current step."""
        self._engine.stop()


def _run_engine(
    plan: Plan,
    parent: socket.socket,
    ring: str,
    log_settings: tuple[logs.Detail, bool],
    started_at: float,
    listener: socket.socket | None,
) -> None:
    from conure.engine.main import run_engine_process  # noqa: PLC0415  it loads networks, which the parent never does

    run_engine_process(plan, parent, ring, log_settings, started_at, listener)


class ProcessTransport:
    """Runs the engine in a child process: it can crash and be restarted, and does not block the parent.

    Other processes may connect to `listener`; connections made while no engine runs wait for the next one.
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
        self._socket: EngineSocket | None = None
        self._process: multiprocessing.process.BaseProcess | None = None
        self._was_ready = False
        self.process_id: int | None = None

    async def start(self) -> tuple[ModelInfo, ...]:
        self._socket, self._was_ready = None, False
        try:
            opened = self._socket = await self._start_process()
        except OSError as error:
            raise EngineDisconnected(f"the engine process cannot be started: {error.strerror or error}") from error
        try:
            ready = await opened.wait_ready(self._start_seconds)
            self._was_ready = True
            return ready.models
        except EngineHung:
            self.kill()
            await self._end_process()
            raise
        except EngineDisconnected as error:
            raise await self._reap(error) from None
        except ConureError:
            await self.stop()
            raise

    async def _start_process(self) -> EngineSocket:
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as on_error:
            on_error.callback(ours.close)
            ring = SampleRing.create(self._ring_samples)
            on_error.callback(ring.close)
            self._process = multiprocessing.get_context("spawn").Process(
                target=_run_engine,
                args=(self._plan, theirs, ring.name, logs.current_config(), time.time(), self._listener),
                name="conure-engine",
            )
            self._process.start()
            on_error.pop_all()
        self.process_id = self._process.pid
        return await EngineSocket.open(ours, ring)

    async def send(self, requests: list[Request]) -> None:
        if self._socket is None:
            raise EngineDisconnected
        await self._socket.send(requests)

    async def receive(self) -> list[StreamEvent | EngineEvent]:
        if self._socket is None:
            raise EngineDisconnected
        try:
            return await self._socket.receive()
        except EngineDisconnected as error:
            raise await self._reap(error) from None

    async def _reap(self, error: EngineDisconnected) -> EngineDisconnected:
        """Ends the process and adds its exit reason to the error."""
        await self._end_process()
        assert self._process
        if self._process.exitcode == DEVICE_FAILED_EXIT:
            return EngineDisconnected("the engine's device failed")
        return EngineDisconnected(f"{error} ({_exit_reason(self._process.exitcode)})")

    async def stop(self) -> None:
        await self._end_process()
        if self._was_ready and self._process and self._process.exitcode:
            log.warning("the engine did not end in good order: %s", _exit_reason(self._process.exitcode))

    async def _end_process(self) -> None:
        """Closes the socket, on which the process exits; kills it when it does not."""
        if self._socket:
            self._socket.close_socket()
        if self._process and self._process.pid:
            await asyncio.to_thread(self._process.join, EXIT_TIMEOUT)
            if self._process.is_alive():
                self._process.kill()
                await asyncio.to_thread(self._process.join)
        if self._socket:
            self._socket.close()

    def kill(self) -> None:
        if self._process and self._process.pid:
            self._process.kill()


def _exit_reason(exit_code: int | None) -> str:
    if exit_code is not None and -exit_code in signal.valid_signals():
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


class SocketTransport:
    """Connects to an engine that the parent process starts and restarts, and that several processes share."""

    def __init__(self, path: Path, connection: int, ring_samples: int = RING_SAMPLES) -> None:
        """`path` of the engine's Unix socket; `connection`: a number that no other process uses."""
        self._path = path
        self._connection = connection
        self._ring_samples = ring_samples
        self._socket: EngineSocket | None = None
        self.process_id: int | None = None

    async def start(self) -> tuple[ModelInfo, ...]:
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.connect(str(self._path))
        except OSError:
            connected.close()
            raise EngineFailed("the engine is not running", "see the log") from None
        ring = SampleRing.create(self._ring_samples)
        opened = self._socket = await EngineSocket.open(connected, ring)
        try:
            opened.send_connect(Connect(self._connection, ring.name))
            ready = await opened.wait_ready()
        except BaseException:
            await self.stop()
            raise
        self.process_id = ready.process_id
        return ready.models

    async def send(self, requests: list[Request]) -> None:
        if self._socket is None:
            raise EngineDisconnected
        await self._socket.send(requests)

    async def receive(self) -> list[StreamEvent | EngineEvent]:
        if self._socket is None:
            raise EngineDisconnected
        try:
            return await self._socket.receive()
        except EngineDisconnected:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self._socket:
            self._socket.close()

    def kill(self) -> None:
        """Closes this connection only: the parent process decides whether the engine is killed."""
        if self._socket:
            self._socket.abort()
