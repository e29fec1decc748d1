"""Where everything is put together: settings to engine to service to doors, and an orderly stop.

SIGTERM or Ctrl-C   no new streams; those that are open finish, then the server ends
the same once more  it ends at once
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from conure.doors.app import web_app
from conure.doors.health import serve_status
from conure.doors.stream_lines import serve_lines
from conure.engine.handle import EngineHandle
from conure.engine.plan import ModelCard, Plan
from conure.errors import BadOption
from conure.garbage import keep_what_is_there
from conure.service.files import FileService
from conure.service.live import LiveService
from conure.service.models import Models
from conure.service.status import Status
from conure.service.tokenizers import Tokenizers
from conure.settings import Settings

__all__ = ["Serving", "serve"]

log = logging.getLogger(__name__)

LONGEST_MESSAGE = 2**22
"""Bytes of a WebSocket message: two minutes of PCM at 16 kHz."""
PING_SECONDS, PONG_SECONDS = 20.0, 120.0
"""A client whose machine is gone is noticed after both. One that sends faster than it is heard has its pong wait behind
minutes of audio."""
FLUSH_SECONDS = 5.0
"""For a client to read what was sent before its connection was closed."""


@dataclass(frozen=True)
class Serving:
    """What the server turned out to be."""

    models: tuple[ModelCard, ...]
    web: str
    tcp: str
    status: str


async def serve(settings: Settings, handle: EngineHandle, plan: Plan, on_ready: Callable[[Serving], None]) -> None:
    """Over an engine that has started, until it is told to stop. Raises ConureError where a door cannot be opened."""
    try:
        tokenizers = Tokenizers()
        models = Models(handle, plan.live, plan.clips)
        live = LiveService(handle, models, tokenizers, settings.resume_seconds)
        files = FileService(handle, tokenizers, settings.max_hours * 3600)
        status = Status(live)
        app = web_app(live, files, status, int(settings.max_upload_mb * 1e6))
        async with contextlib.AsyncExitStack() as doors:
            web = _WebServer(app, settings)
            tcp = await _listen(settings.tcp_port, "tcp_port", lambda port: serve_lines(live, settings.host, port))
            told = await _listen(
                settings.status_port, "status_port", lambda port: serve_status(status, settings.host, port)
            )
            for server in (tcp, told):
                doors.callback(server.close)
            serving = asyncio.create_task(web.serve())
            await web.wait_until_listening(serving)
            keep_what_is_there()
            address = settings.host
            on_ready(
                Serving(
                    models=handle.cards,
                    web=f"http://{address}:{web.port}",
                    tcp=f"{address}:{_port(tcp)}",
                    status=f"{address}:{_port(told)}",
                )
            )
            await _until_stopped(live, files, web, serving, settings.drain_seconds)
            live.stop()
            files.stop()
    finally:
        await handle.stop()


async def _until_stopped(
    live: LiveService, files: FileService, web: _WebServer, serving: asyncio.Task[None], drain_seconds: float
) -> None:
    asked = asyncio.Event()
    draining: asyncio.Task[None] | None = None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    while not serving.done():
        waiting = asyncio.create_task(asked.wait())
        tasks = {serving, waiting} | ({draining} if draining else set())
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if waiting in done and draining is None:
            asked.clear()
            log.warning("stopping: %d streams are open and may go on for %g s", len(live), drain_seconds)
            draining = asyncio.create_task(_drain(live, files, drain_seconds))
        elif serving not in done:
            break
    if draining:
        draining.cancel()
    web.should_exit = web.force_exit = True
    await serving


async def _drain(live: LiveService, files: FileService, seconds: float) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(live.drain(seconds))
        tasks.create_task(files.drain(seconds))


class _Socket(WebSocketsSansIOProtocol):
    """A connection ends a while after its door has left, whether the client reads or not."""

    async def run_asgi(self) -> None:
        await super().run_asgi()
        asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.transport.abort)

    def handle_parser_exception(self) -> None:
        """Says what was wrong, then reads and drops the rest: a reset would overtake the reason."""
        if self.close_sent or self.conn.close_sent is None:
            return
        self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.close_timer = self.loop.call_later(FLUSH_SECONDS, self.transport.close)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": self.conn.close_sent.code})


class _WebServer(uvicorn.Server):
    def __init__(self, app: FastAPI, settings: Settings) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws=_Socket,
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
                raise _taken("port", self._asked)
            await asyncio.sleep(0.005)


async def _listen(port: int, name: str, start: Callable[[int], Awaitable[asyncio.Server]]) -> asyncio.Server:
    try:
        return await start(port)
    except OSError:
        raise _taken(name, port) from None


def _taken(name: str, port: int) -> BadOption:
    flag = "--" + name.replace("_", "-")
    return BadOption(f"port {port} is taken", f"stop what listens there, or choose another with {flag}")


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port
