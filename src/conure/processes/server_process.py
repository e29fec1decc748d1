"""A server process: it holds connections and sessions, and is connected to the engine process.

It follows only the parent's messages, and ends when the parent is gone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import shutil
import signal
import socket
from typing import Any

from conure import log as logs
from conure import metrics
from conure.background import log_unhandled_errors, report_failure, report_if_failed, start_task
from conure.engine.client import EngineClient
from conure.engine.ipc.transport import RING_SAMPLES, SocketTransport
from conure.engine.ipc.wire import StartFailed
from conure.engine.plan import Plan
from conure.errors import ConureError
from conure.event_loop import new_event_loop
from conure.json_stderr import redirect_stderr
from conure.parent_death import notice_parent_end
from conure.processes.control_protocol import (
    ControlChannel,
    Drain,
    Drained,
    LimitReached,
    Report,
    ReportRequest,
    ReportResponse,
    ServerOpened,
    StatusRequest,
    StatusResponse,
    Stop,
    UsageGranted,
    wait_for_response,
)
from conure.processes.shared_limits import SharedUsage
from conure.server import WEB, ProtocolServers, open_servers
from conure.service.live_service import LiveService
from conure.service.process_identity import ProcessIdentity
from conure.settings import Settings

__all__ = ["run"]

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
CLOSING_SECONDS = 2.0
"""Time to notify clients that the engine is gone, and for the parent to end all processes."""


def run(
    settings: Settings,
    plan: Plan,
    identity: ProcessIdentity,
    connection: socket.socket,
    log_config: tuple[logs.Detail, bool],
) -> None:
    """Runs until the parent stops it or is gone. `connection`: to the parent."""
    notice_parent_end()
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal signals the whole group; only the parent reacts
        signal.signal(number, signal.SIG_IGN)
    detail, as_json = log_config
    logs.configure(detail, as_json=as_json)
    if as_json:
        redirect_stderr()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_run(settings, plan, identity, connection))


async def _run(settings: Settings, plan: Plan, identity: ProcessIdentity, connection: socket.socket) -> None:
    log_unhandled_errors(asyncio.get_running_loop())
    parent = await ControlChannel.from_socket(connection)
    engine = EngineClient(
        SocketTransport(identity.engine_socket, identity.number, identity.share_of(RING_SAMPLES)), identity.number
    )
    status, usage = _SharedStatus(parent, engine), SharedUsage(parent)
    reading = start_task(_read_messages(parent, status, usage), "reading from the parent process")
    serving = start_task(
        _serve(settings, plan, identity, engine, status, usage, parent, reading), "serving connections"
    )
    await asyncio.wait((serving, reading), return_when=asyncio.FIRST_COMPLETED)
    if status.servers is None:
        serving.cancel()
    await asyncio.wait([serving])
    reading.cancel()
    for result in await asyncio.gather(serving, reading, return_exceptions=True):
        if isinstance(result, Exception):
            log.error("server process exiting", exc_info=result)
    await engine.stop()
    if not status.is_dismissed and identity.socket_folder:
        shutil.rmtree(identity.socket_folder, ignore_errors=True)  # the parent was killed
    parent.close()


async def _serve(
    settings: Settings,
    plan: Plan,
    identity: ProcessIdentity,
    engine: EngineClient,
    status: _SharedStatus,
    usage: SharedUsage,
    parent: ControlChannel,
    reading: asyncio.Task[None],
) -> None:
    """Serves until `reading` ends, which means that the parent is gone or has stopped this process."""
    try:
        await engine.start()
        async with open_servers(settings, engine, plan, identity, status, usage) as servers:
            status.servers = servers
            parent.send(ServerOpened())
            engine_failure = start_task(engine.wait_for_failure(), "waiting for the engine's end")
            await asyncio.wait((servers.web_task, reading, engine_failure), return_when=asyncio.FIRST_COMPLETED)
            engine_failure.cancel()
            if servers.web_task.done():
                raise report_failure(WEB, servers.web_task.exception())
            if engine_failure.done():  # the parent decides what to do: it has the engine
                await asyncio.wait((reading,), timeout=CLOSING_SECONDS)
                raise engine_failure.result()
    except ConureError as error:
        status.is_dismissed = True
        parent.send(StartFailed(type(error).__name__, error.message, error.hint))


async def _read_messages(parent: ControlChannel, status: _SharedStatus, usage: SharedUsage) -> None:
    """Returns on a Stop, or when the parent is gone."""
    draining: asyncio.Task[None] | None = None
    while message := await parent.receive():
        match message:
            case ReportRequest(number):
                parent.send(ReportResponse(number, status.own_report()))
            case StatusResponse():
                status.handle_response(message)
            case UsageGranted() | LimitReached():
                usage.handle_response(message)
            case Drain(seconds):
                draining = start_task(_drain(status, parent, seconds), "draining")
                report_if_failed(draining, "draining")
            case Stop():
                status.is_dismissed = True
                break
    if draining:
        draining.cancel()


async def _drain(status: _SharedStatus, parent: ControlChannel, seconds: float) -> None:
    while status.servers is None:
        await asyncio.sleep(POLL_SECONDS)  # this process is a replacement that has not started completely
    await status.servers.drain(seconds)
    parent.send(Drained())


class _SharedStatus:
    """Status of the whole server, requested from the parent."""

    def __init__(self, parent: ControlChannel, engine: EngineClient) -> None:
        self.servers: ProtocolServers | None = None
        self.is_dismissed = False
        """The parent knows that this process ends."""
        self._parent = parent
        self._engine = engine
        self._pending: dict[int, asyncio.Future[StatusResponse]] = {}
        self._numbers = itertools.count(1)

    @property
    def _live(self) -> LiveService | None:
        return self.servers.live if self.servers else None

    @property
    def is_ready(self) -> bool:
        return self._engine.is_ready and self._live is not None and not self._live.is_draining

    async def report(self) -> dict[str, Any]:
        return (await self._request()).status

    async def render_metrics(self) -> bytes:
        return metrics.render((await self._request()).metrics)

    def own_report(self) -> Report:
        """State of this process."""
        return Report(len(self._live) if self._live is not None else 0, metrics.collect())

    def handle_response(self, response: StatusResponse) -> None:
        pending = self._pending.pop(response.number, None)
        if pending and not pending.done():
            pending.set_result(response)

    async def _request(self) -> StatusResponse:
        """Raises Busy if the parent does not respond."""
        number = next(self._numbers)
        response: asyncio.Future[StatusResponse] = asyncio.get_running_loop().create_future()
        self._pending[number] = response
        try:
            self._parent.send(StatusRequest(number))
            return await wait_for_response(response)
        finally:
            self._pending.pop(number, None)
