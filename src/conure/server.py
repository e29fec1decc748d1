"""Where everything is put together: settings to engine to service to doors, and an orderly stop.

SIGTERM or Ctrl-C   no new streams; those that are open finish, then the server ends
the same once more  it ends at once
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from conure.background import report_failure, start_task
from conure.engine.client import EngineClient
from conure.engine.plan import Plan
from conure.gc_freeze import freeze_heap
from conure.protocols.http.acceptor import Acceptor, Port
from conure.protocols.http.app import web_app
from conure.protocols.http.connection_limits import KEEP_ALIVE_SECONDS, Capacity, Connection, ConnectionLimits
from conure.protocols.http.health import serve_status
from conure.protocols.http.http_errors import NO_CAPACITY, PLAIN_ON_TLS_PORT
from conure.protocols.http.identification import identify_connections
from conure.protocols.http.origin_guard import AllowedOrigins, guard_origins
from conure.protocols.http.paths import normalize_paths
from conure.protocols.http.request_drain import drain_refused_body
from conure.protocols.http.uploads import Uploads
from conure.protocols.http.uvicorn_http import LimitedHttpProtocol, raw_error_response
from conure.protocols.http.uvicorn_websocket import DirectWebSocket
from conure.protocols.internal_errors import catch_internal_errors
from conure.protocols.native.stream_relay import serve_stream_relay
from conure.protocols.native.tcp import serve_tcp
from conure.protocols.services import Services
from conure.protocols.wyoming.server import serve_wyoming
from conure.service.bind_policy import disabled_protocols
from conure.service.callbacks import Callbacks
from conure.service.callers import LocalUsage, UsageCounts, open_access
from conure.service.client_secrets import ClientSecrets
from conure.service.engine_metrics import register_engine_metrics
from conure.service.file_service import FileService
from conure.service.live_service import LiveService
from conure.service.model_directory import ModelDirectory
from conure.service.process_identity import SINGLE_PROCESS, ProcessIdentity
from conure.service.safe_http import SafeHttp
from conure.service.server_info import Ports, ServerInfo, server_info
from conure.service.shared_ports import open_listeners, port_in_use, port_to_bind
from conure.service.status import ProcessStatus, Status
from conure.service.tokenizer_cache import TokenizerCache
from conure.service.url_fetcher import UrlFetcher
from conure.settings import Settings

__all__ = ["WEB", "ProtocolServers", "open_servers", "serve"]

log = logging.getLogger(__name__)

LONGEST_MESSAGE = 2**26
"""Bytes of a WebSocket message: half an hour of PCM at 16 kHz."""
PING_SECONDS, PONG_SECONDS = 20.0, 120.0
"""A client whose machine is gone is noticed after both. One that sends much over a slow line has its pong wait behind
minutes of audio."""


async def serve(settings: Settings, handle: EngineClient, plan: Plan, on_ready: Callable[[ServerInfo], None]) -> None:
    """Over an engine that has started, until it is told to stop.

    Raises ConureError where a door cannot be opened, or there is no engine any more.
    """
    try:
        register_engine_metrics(handle)
        async with open_servers(settings, handle, plan) as doors:
            on_ready(server_info(settings, handle.cards, doors.ports))
            await _until_stopped(doors, handle, settings.drain_seconds)
    finally:
        await handle.stop()


LAST_WORDS = 1.0
"""Seconds for connections to be ended in good order."""
WEB = "serving the web"


class ProtocolServers:
    """All that are open, and what is behind them."""

    def __init__(self, behind: Services, web: _WebServer, ports: Ports) -> None:
        self.live = behind.live
        self.ports = ports
        self.web_task: asyncio.Task[None]
        """Is done when the web server has ended."""
        self._files = behind.files
        self._callbacks = behind.callbacks
        self._web = web

    async def drain(self, seconds: float) -> None:
        """Nothing new; returns when what is open has ended, or after so many seconds."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.live.drain(seconds))
            tasks.create_task(self._files.drain(seconds))
            tasks.create_task(self._callbacks.drain(seconds))

    async def close(self) -> None:
        """At once."""
        self._web.should_exit = self._web.force_exit = True
        await asyncio.wait([self.web_task])
        self.live.stop()
        self._files.stop()
        await self._callbacks.close()
        if tasks := self._web.server_state.tasks:
            await asyncio.wait(tasks, timeout=LAST_WORDS)


@contextlib.asynccontextmanager
async def open_servers(
    settings: Settings,
    handle: EngineClient,
    plan: Plan,
    place: ProcessIdentity = SINGLE_PROCESS,
    status: Status | None = None,
    counts: UsageCounts | None = None,
) -> AsyncIterator[ProtocolServers]:
    """Doors over an engine that has started. Where there are several processes they share the ports.

    `status`, `counts`: what is told of the whole server, and what keys have had, where it is more than this process.
    """
    host, shared = settings.host, place.process_count > 1
    tokenizers = TokenizerCache()
    models = ModelDirectory(handle, plan.live, plan.clips)
    most_backlog = place.share_of(int(settings.max_backlog_mb * 1e6))
    live = LiveService(handle, models, tokenizers, settings.resume_seconds, place, most_backlog)
    files = FileService(handle, tokenizers, settings.max_hours * 3600, place)
    access = open_access(settings, counts or LocalUsage())
    outside = SafeHttp(settings.allow_private_urls)
    fetcher, callbacks = UrlFetcher(outside, place), Callbacks(outside, place)
    signed = ClientSecrets(place.secret)
    uploads = Uploads(int(settings.max_upload_mb * 1e6), place.share_of(settings.max_uploads))
    connections = ConnectionLimits(
        Capacity.from_descriptor_limit(settings.max_connections, settings.max_unauthenticated),
        needs_key=access.needs_key,
    )
    behind = Services(
        live, files, status or ProcessStatus(live), access, uploads, connections, fetcher, callbacks, signed
    )
    closed = disabled_protocols(settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(connections.close)

        async def listen(name: str, start: Callable[[int], Awaitable[Acceptor]]) -> int | None:
            port = port_to_bind(getattr(settings, name))
            if port is None:
                return None
            try:
                server = await start(port)
            except OSError:
                raise port_in_use(name, port) from None
            stack.callback(server.close)
            return server.port

        tcp = await listen("tcp_port", lambda port: serve_tcp(behind, host, port, shared=shared))
        grpc = await _grpc(behind, settings, shared, stack)
        wyoming = await listen("wyoming_port", lambda port: serve_wyoming(behind, host, port, shared=shared))
        told = await listen("status_port", lambda port: serve_status(behind, host, port, shared=shared))
        if place.own_socket:
            stack.callback((await serve_stream_relay(behind, place.own_socket)).close)
        app = normalize_paths(guard_origins(catch_internal_errors(web_app(behind, closed)), _pages(settings)))
        app = identify_connections(drain_refused_body(app), behind)
        web = _WebServer(app, settings, connections, shared)
        serving = start_task(web.serve(), WEB)
        await web.wait_until_listening(serving)
        freeze_heap()
        doors = ProtocolServers(behind, web, Ports(web.port, tcp, grpc, wyoming, told))
        doors.web_task = serving
        try:
            yield doors
        finally:
            await doors.close()


async def _grpc(behind: Services, settings: Settings, shared: bool, stack: contextlib.AsyncExitStack) -> int | None:
    port = port_to_bind(settings.grpc_port)
    if port is None:
        return None
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes a line of its own for each handshake that fails
    from conure.protocols.riva.server import serve_riva  # noqa: PLC0415  its libraries are there in `conure[grpc]` alone

    certificate, key = settings.tls_certificate, settings.tls_key
    tls = (certificate, key) if certificate and key else None
    server = await serve_riva(behind, settings.host, port, shared=shared, tls=tls)
    stack.push_async_callback(server.close)
    return server.port


def _pages(settings: Settings) -> AllowedOrigins:
    origins = tuple(filter(None, map(str.strip, settings.cors.split(","))))
    return AllowedOrigins(origins, local_names_only=not (settings.keys or settings.allow_anonymous), host=settings.host)


async def _until_stopped(doors: ProtocolServers, handle: EngineClient, drain_seconds: float) -> None:
    """Raises ConureError where there is no engine any more, nor will there be one, or the web server has ended."""
    asked = asyncio.Event()
    draining: asyncio.Task[None] | None = None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    lost = start_task(handle.until_failed(), "waiting for the engine's end")
    while not doors.web_task.done():
        waiting = start_task(asked.wait(), "waiting for a signal")
        tasks = {doors.web_task, waiting, lost} | ({draining} if draining else set())
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if lost in done:
            await doors.drain(LAST_WORDS)  # clients hear of it
            break
        if waiting in done and draining is None:
            asked.clear()
            log.warning("stopping: %d streams are open and may go on for %g s", len(doors.live), drain_seconds)
            draining = start_task(doors.drain(drain_seconds), "draining")
        elif doors.web_task not in done:
            break
    lost.cancel()
    if draining:
        draining.cancel()
    if lost.done():
        raise lost.result()
    if doors.web_task.done():
        raise report_failure(WEB, doors.web_task.exception())


class _WebServer(uvicorn.Server):
    """With a way of its own to accept connections, all else is uvicorn's."""

    def __init__(self, app: ASGIApp, settings: Settings, connections: ConnectionLimits, shared: bool) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="error",  # what it tells else has the query in it, and that may have a key
            access_log=False,
            lifespan="off",
            http=LimitedHttpProtocol,
            ws=DirectWebSocket,
            ws_max_size=LONGEST_MESSAGE,
            ws_ping_interval=PING_SECONDS,
            ws_ping_timeout=PONG_SECONDS,
            ws_per_message_deflate=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        super().__init__(config)
        self._settings, self._connections, self._shared = settings, connections, shared
        self._asked = port_to_bind(settings.port)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours: streams finish first."""
        yield

    async def startup(self, sockets: object = None) -> None:
        """Raises OSError where the port cannot be had."""
        self.servers: list[Acceptor] = []  # type: ignore[assignment]
        if self._asked is not None:
            listening = open_listeners(self._settings.host, self._asked, shared=self._shared)
            self.servers.append(Acceptor(listening, self._port(), self._speak))
        self.started = True

    @property
    def port(self) -> int | None:
        """None where it does not listen."""
        return self.servers[0].port if self.servers else None

    async def wait_until_listening(self, serving: asyncio.Task[None]) -> None:
        while not self.started:
            if serving.done():
                serving.exception()
                raise port_in_use("port", self._asked or 0)
            await asyncio.sleep(0.005)

    def _port(self) -> Port:
        context = _encryption(self._settings)
        return Port(
            "web", self._connections, raw_error_response(NO_CAPACITY), context, raw_error_response(PLAIN_ON_TLS_PORT)
        )

    def _speak(self, connection: Connection) -> LimitedHttpProtocol:
        return LimitedHttpProtocol(self.config, self.server_state, {}, connection=connection)


def _encryption(settings: Settings) -> ssl.SSLContext | None:
    if not (settings.tls_certificate and settings.tls_key):
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    return context
