"""Where everything is put together: settings to engine to service to doors, and an orderly stop.

SIGTERM or Ctrl-C   no new streams; those that are open finish, then the server ends
the same once more  it ends at once
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import uvicorn
from fastapi import FastAPI

from conure.doors.app import web_app
from conure.doors.direct_socket import DirectSocket
from conure.doors.health import serve_status
from conure.doors.relay import serve_relayed
from conure.doors.stream_lines import serve_lines
from conure.engine.handle import EngineHandle
from conure.engine.plan import Plan
from conure.garbage import keep_what_is_there
from conure.service.engine_metrics import count_engine
from conure.service.files import FileService
from conure.service.live import LiveService
from conure.service.models import Models
from conure.service.place import ALONE, Place
from conure.service.ports import shared_sockets, taken
from conure.service.serving import Ports, Serving
from conure.service.status import OwnStatus, Status
from conure.service.tokenizers import Tokenizers
from conure.settings import Settings

__all__ = ["Doors", "opened", "serve"]

log = logging.getLogger(__name__)

LONGEST_MESSAGE = 2**22
"""Bytes of a WebSocket message: two minutes of PCM at 16 kHz."""
PING_SECONDS, PONG_SECONDS = 20.0, 120.0
"""A client whose machine is gone is noticed after both. One that sends faster than it is heard has its pong wait behind
minutes of audio."""


async def serve(settings: Settings, handle: EngineHandle, plan: Plan, on_ready: Callable[[Serving], None]) -> None:
    """Over an engine that has started, until it is told to stop. Raises ConureError where a door cannot be opened."""
    try:
        count_engine(handle)
        async with opened(settings, handle, plan) as doors:
            on_ready(Serving(handle.cards, settings.host, doors.ports))
            await _until_stopped(doors, settings.drain_seconds)
    finally:
        await handle.stop()


LAST_WORDS = 1.0
"""Seconds for connections to be ended in good order."""


class Doors:
    """All that are open, and what is behind them."""

    def __init__(self, live: LiveService, files: FileService, web: _WebServer, ports: Ports) -> None:
        self.live = live
        self.ports = ports
        self.serving: asyncio.Task[None]
        """Is done when the web server has ended."""
        self._files = files
        self._web = web

    async def drain(self, seconds: float) -> None:
        """Nothing new; returns when what is open has ended, or after so many seconds."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.live.drain(seconds))
            tasks.create_task(self._files.drain(seconds))

    async def close(self) -> None:
        """At once."""
        self._web.should_exit = self._web.force_exit = True
        await self.serving
        self.live.stop()
        self._files.stop()
        if tasks := self._web.server_state.tasks:
            await asyncio.wait(tasks, timeout=LAST_WORDS)


@contextlib.asynccontextmanager
async def opened(
    settings: Settings, handle: EngineHandle, plan: Plan, place: Place = ALONE, status: Status | None = None
) -> AsyncIterator[Doors]:
    """Doors over an engine that has started. Where there are several processes they share the ports.

    `status`: what is told of the whole server, where it is more than this process.
    """
    host, shared = settings.host, place.among > 1
    tokenizers = Tokenizers()
    models = Models(handle, plan.live, plan.clips)
    live = LiveService(handle, models, tokenizers, settings.resume_seconds, place)
    files = FileService(handle, tokenizers, settings.max_hours * 3600, place)
    told_of = status or OwnStatus(live)
    app = web_app(live, files, told_of, int(settings.max_upload_mb * 1e6))
    async with contextlib.AsyncExitStack() as open_doors:
        web = _WebServer(app, settings)
        lines = await _listen(settings.tcp_port, "tcp_port", lambda port: serve_lines(live, host, port, shared=shared))
        told = await _listen(
            settings.status_port, "status_port", lambda port: serve_status(told_of, host, port, shared=shared)
        )
        servers = [lines, told]
        if place.own_door:
            servers.append(await serve_relayed(live, place.own_door))
        for server in servers:
            open_doors.callback(server.close)
        sockets = shared_sockets(host, settings.port) if shared else None
        serving = asyncio.create_task(web.serve(sockets))
        await web.wait_until_listening(serving)
        keep_what_is_there()
        doors = Doors(live, files, web, Ports(web.port, _port(lines), _port(told)))
        doors.serving = serving
        try:
            yield doors
        finally:
            await doors.close()


async def _until_stopped(doors: Doors, drain_seconds: float) -> None:
    asked = asyncio.Event()
    draining: asyncio.Task[None] | None = None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    while not doors.serving.done():
        waiting = asyncio.create_task(asked.wait())
        tasks = {doors.serving, waiting} | ({draining} if draining else set())
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if waiting in done and draining is None:
            asked.clear()
            log.warning("stopping: %d streams are open and may go on for %g s", len(doors.live), drain_seconds)
            draining = asyncio.create_task(doors.drain(drain_seconds))
        elif doors.serving not in done:
            break
    if draining:
        draining.cancel()


class _WebServer(uvicorn.Server):
    def __init__(self, app: FastAPI, settings: Settings) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws=DirectSocket,
            ws_max_size=LONGEST_MESSAGE,
            ws_ping_interval=PING_SECONDS,
            ws_ping_timeout=PONG_SECONDS,
            ws_per_message_deflate=False,
        )
        super().__init__(config)
        self._asked = settings.port

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours: streams finish first."""
        yield

    @property
    def port(self) -> int:
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    async def wait_until_listening(self, serving: asyncio.Task[None]) -> None:
        while not self.started:
            if serving.done():
                raise taken("port", self._asked)
            await asyncio.sleep(0.005)


async def _listen(port: int, name: str, start: Callable[[int], Awaitable[asyncio.Server]]) -> asyncio.Server:
    try:
        return await start(port)
    except OSError:
        raise taken(name, port) from None


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port
