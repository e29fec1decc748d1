"""Assembles settings, engine, services and protocol servers, and stops them in order.

SIGTERM or Ctrl-C   accept no new streams; end when the open ones have finished
the second signal   end at once
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

MAX_MESSAGE_BYTES = 2**26
"""Of a WebSocket message: half an hour of PCM at 16 kHz."""
PING_SECONDS, PONG_SECONDS = 20.0, 120.0
"""A dead peer is detected after the sum of both. The pong of a client that sends much over a slow line may be queued
behind minutes of audio."""
CLOSING_SECONDS = 1.0
"""Time for connections to close in order."""
WEB = "serving the web"
"""Name of the web server's task."""


async def serve(settings: Settings, engine: EngineClient, plan: Plan, on_ready: Callable[[ServerInfo], None]) -> None:
    """Serves with a started engine until a signal stops it, then stops the engine.

    Raises ConureError if a port cannot be opened, or the engine is gone for good.
    """
    try:
        register_engine_metrics(engine)
        async with open_servers(settings, engine, plan) as servers:
            on_ready(server_info(settings, engine.model_infos, servers.ports))
            await _run_until_stopped(servers, engine, settings.drain_seconds)
    finally:
        await engine.stop()


class ProtocolServers:
    """The open protocol servers of a process, with their services."""

    def __init__(self, services: Services, web: _WebServer, ports: Ports) -> None:
        self.live = services.live
        self.ports = ports
        self.web_task: asyncio.Task[None]
        """Done when the web server has ended."""
        self._files = services.files
        self._callbacks = services.callbacks
        self._web = web

    async def drain(self, seconds: float) -> None:
        """Accepts nothing new; returns when everything open has ended, or after so many seconds."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.live.drain(seconds))
            tasks.create_task(self._files.drain(seconds))
            tasks.create_task(self._callbacks.drain(seconds))

    async def close(self) -> None:
        """Ends everything at once."""
        self._web.should_exit = self._web.force_exit = True
        await asyncio.wait([self.web_task])
        self.live.stop()
        self._files.stop()
        await self._callbacks.close()
        if tasks := self._web.server_state.tasks:
            await asyncio.wait(tasks, timeout=CLOSING_SECONDS)


@contextlib.asynccontextmanager
async def open_servers(
    settings: Settings,
    engine: EngineClient,
    plan: Plan,
    identity: ProcessIdentity = SINGLE_PROCESS,
    status: Status | None = None,
    usage: UsageCounts | None = None,
) -> AsyncIterator[ProtocolServers]:
    """Protocol servers for a started engine. Several processes share the ports.

    `status`, `usage`: those of the whole server, if it has several processes.
    """
    host, shared = settings.host, identity.process_count > 1
    services = _services(settings, engine, plan, identity, status, usage)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(services.connections.close)

        async def listen(name: str, serve_port: Callable[[int], Awaitable[Acceptor]]) -> int | None:
            port = port_to_bind(getattr(settings, name))
            if port is None:
                return None
            try:
                server = await serve_port(port)
            except OSError:
                raise port_in_use(name, port) from None
            stack.callback(server.close)
            return server.port

        tcp = await listen("tcp_port", lambda port: serve_tcp(services, host, port, shared=shared))
        grpc = await _open_grpc(services, settings, shared, stack)
        wyoming = await listen("wyoming_port", lambda port: serve_wyoming(services, host, port, shared=shared))
        status_port = await listen("status_port", lambda port: serve_status(services, host, port, shared=shared))
        if identity.own_socket:
            stack.callback((await serve_stream_relay(services, identity.own_socket)).close)
        web = _WebServer(_web_stack(services, settings), settings, services.connections, shared)
        web_task = start_task(web.serve(), WEB)
        await web.wait_until_listening(web_task)
        freeze_heap()
        servers = ProtocolServers(services, web, Ports(web.port, tcp, grpc, wyoming, status_port))
        servers.web_task = web_task
        try:
            yield servers
        finally:
            await servers.close()


def _services(
    settings: Settings,
    engine: EngineClient,
    plan: Plan,
    identity: ProcessIdentity,
    status: Status | None,
    usage: UsageCounts | None,
) -> Services:
    """Limits of the whole server are divided among its processes."""
    tokenizers = TokenizerCache()
    models = ModelDirectory(engine, plan.live_models, plan.clip_models)
    max_backlog = identity.share_of(int(settings.max_backlog_mb * 1e6))
    live = LiveService(engine, models, tokenizers, settings.resume_seconds, identity, max_backlog)
    files = FileService(engine, tokenizers, settings.max_hours * 3600, identity)
    access = open_access(settings, usage or LocalUsage())
    http = SafeHttp(settings.allow_private_urls)
    uploads = Uploads(int(settings.max_upload_mb * 1e6), identity.share_of(settings.max_uploads))
    connections = ConnectionLimits(
        Capacity.from_descriptor_limit(settings.max_connections, settings.max_unauthenticated),
        needs_key=access.needs_key,
    )
    fetcher, callbacks = UrlFetcher(http, identity), Callbacks(http, identity)
    secrets = ClientSecrets(identity.secret)
    return Services(
        live, files, status or ProcessStatus(live), access, uploads, connections, fetcher, callbacks, secrets
    )


def _web_stack(services: Services, settings: Settings) -> ASGIApp:
    app = catch_internal_errors(web_app(services, disabled_protocols(settings)))
    app = normalize_paths(guard_origins(app, _allowed_origins(settings)))
    return identify_connections(drain_refused_body(app), services)


async def _open_grpc(
    services: Services, settings: Settings, shared: bool, stack: contextlib.AsyncExitStack
) -> int | None:
    port = port_to_bind(settings.grpc_port)
    if port is None:
        return None
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the core would log a line for each failed handshake
    from conure.protocols.riva.server import serve_riva  # noqa: PLC0415  its libraries are in `conure[grpc]` only

    certificate, key = settings.tls_certificate, settings.tls_key
    tls = (certificate, key) if certificate and key else None
    server = await serve_riva(services, settings.host, port, shared=shared, tls=tls)
    stack.push_async_callback(server.close)
    return server.port


def _allowed_origins(settings: Settings) -> AllowedOrigins:
    origins = tuple(filter(None, map(str.strip, settings.cors.split(","))))
    return AllowedOrigins(origins, local_names_only=not (settings.keys or settings.allow_anonymous), host=settings.host)


async def _run_until_stopped(servers: ProtocolServers, engine: EngineClient, drain_seconds: float) -> None:
    """Raises ConureError if the engine is gone for good, or the web server has ended."""
    signaled = asyncio.Event()
    draining: asyncio.Task[None] | None = None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signaled.set)
    engine_failure = start_task(engine.wait_for_failure(), "waiting for the engine's end")
    while not servers.web_task.done():
        next_signal = start_task(signaled.wait(), "waiting for a signal")
        tasks = {servers.web_task, next_signal, engine_failure} | ({draining} if draining else set())
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        next_signal.cancel()
        if engine_failure in done:
            await servers.drain(CLOSING_SECONDS)  # notifies clients
            break
        if next_signal in done and draining is None:
            signaled.clear()
            log.warning("stopping: %d streams are open and may go on for %g s", len(servers.live), drain_seconds)
            draining = start_task(servers.drain(drain_seconds), "draining")
        elif servers.web_task not in done:
            break
    engine_failure.cancel()
    if draining:
        draining.cancel()
    if engine_failure.done():
        raise engine_failure.result()
    if servers.web_task.done():
        raise report_failure(WEB, servers.web_task.exception())


class _WebServer(uvicorn.Server):
    """Uvicorn with our own acceptor, limits and signal handling."""

    def __init__(self, app: ASGIApp, settings: Settings, connections: ConnectionLimits, shared: bool) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="error",  # lower levels log the query, which may contain a key
            access_log=False,
            lifespan="off",
            http=LimitedHttpProtocol,
            ws=DirectWebSocket,
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_ping_interval=PING_SECONDS,
            ws_ping_timeout=PONG_SECONDS,
            ws_per_message_deflate=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        super().__init__(config)
        self._settings, self._connections, self._shared = settings, connections, shared
        self._requested_port = port_to_bind(settings.port)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to `_run_until_stopped`: streams finish first."""
        yield

    async def startup(self, sockets: object = None) -> None:
        """Raises OSError if the port cannot be opened."""
        self.servers: list[Acceptor] = []  # type: ignore[assignment]
        if self._requested_port is not None:
            listeners = open_listeners(self._settings.host, self._requested_port, shared=self._shared)
            self.servers.append(Acceptor(listeners, self._port(), self._protocol))
        self.started = True

    @property
    def port(self) -> int | None:
        """None if it does not listen."""
        return self.servers[0].port if self.servers else None

    async def wait_until_listening(self, web_task: asyncio.Task[None]) -> None:
        while not self.started:
            if web_task.done():
                web_task.exception()
                raise port_in_use("port", self._requested_port or 0)
            await asyncio.sleep(0.005)

    def _port(self) -> Port:
        context = _tls_context(self._settings)
        return Port(
            "web", self._connections, raw_error_response(NO_CAPACITY), context, raw_error_response(PLAIN_ON_TLS_PORT)
        )

    def _protocol(self, connection: Connection) -> LimitedHttpProtocol:
        return LimitedHttpProtocol(self.config, self.server_state, {}, connection=connection)


def _tls_context(settings: Settings) -> ssl.SSLContext | None:
    if not (settings.tls_certificate and settings.tls_key):
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    return context
