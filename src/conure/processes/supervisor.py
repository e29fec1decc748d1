"""Runs in the parent: starts the server processes, checks that they respond, sums their reports, and ends them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import multiprocessing
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from conure import errors, metrics
from conure import log as logs
from conure.background import report_failure, report_if_failed, start_restarting_task, start_task
from conure.engine.ipc.wire import StartFailed
from conure.engine.plan import Plan
from conure.errors import ConureError, EngineFailed
from conure.metrics import Family
from conure.processes.control_protocol import (
    BeginUsage,
    ControlChannel,
    Drain,
    Drained,
    EndUsage,
    Report,
    ReportRequest,
    ReportResponse,
    ReserveUsage,
    ServerOpened,
    SpendUsage,
    StatusRequest,
    StatusResponse,
    Stop,
)
from conure.processes.shared_limits import SharedLedger
from conure.service.process_identity import ProcessIdentity
from conure.settings import Settings

__all__ = ["Supervisor"]

log = logging.getLogger(__name__)

REPORT_TIMEOUT = 2.0
"""Seconds to wait for the reports of a status; after that the last known report of a process is used."""
RETRY_DELAY = 1.0
"""Seconds between attempts to start a process."""
CHECK_INTERVAL = 2.0
"""Seconds between health checks. Each also fetches the counters, which stay counted when the process dies."""
SILENT_CHECKS = 3
"""Checks in a row without a message, after which a status does not wait for the process."""
MAX_MISSED_CHECKS = 8
"""Checks in a row without a message, after which the process is killed: its streams lag too far behind anyway, and the
kernel keeps assigning connections to it."""
UNSOLICITED = 0
"""Number of a health check's request; nothing waits for its response."""
STOP_TIMEOUT = 5.0
"""Seconds that a process has to end by itself."""
MAX_FAILED_STARTS = 5
"""Deaths in a row without a process that opened its ports; after that no process is restarted."""

StatusBuilder = Callable[[int, list[Family]], StatusResponse]
"""Streams and metrics of all processes -> the response to a status request, with number 0."""


class Supervisor:
    def __init__(self, settings: Settings, plan: Plan, identity: ProcessIdentity, build_status: StatusBuilder) -> None:
        """`identity`: that of the server processes, except for its number."""
        self._settings, self._plan, self._identity = settings, plan, identity
        self._build_status = build_status
        self._ledger = SharedLedger()
        self._process_numbers = itertools.count(1)
        self._request_numbers = itertools.count(1)
        self._processes: dict[int, _ServerProcess] = {}
        self._past_counters: list[Family] = []
        """Of processes that are gone."""
        self._failed_starts = 0
        """In a row."""
        self._reader_tasks: set[asyncio.Task[None]] = set()
        self._health_checks: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets an exception when no server process is left and none will be started."""
        self._is_stopping = False

    @property
    def process_ids(self) -> dict[str, int]:
        return {f"server process {number}": process.pid for number, process in self._processes.items()}

    async def start(self) -> None:
        """Returns when all processes have opened their ports. Raises ConureError if one cannot."""
        processes = [await self._start_process() for _ in range(self._identity.process_count)]
        self._health_checks = start_restarting_task(self._check_health, "checking server processes")
        for process in processes:
            await process.opened

    async def collect_status(self) -> StatusResponse:
        """Status of the whole server."""
        number = next(self._request_numbers)
        running = [process for process in self._processes.values() if process.opened.done() and not process.is_silent]
        if pending := [process.request_report(number) for process in running]:
            await asyncio.wait(pending, timeout=REPORT_TIMEOUT)
        for process in running:
            process.pending_reports.pop(number, None)
        reports = [process.report for process in self._processes.values()]
        families = metrics.sum_families(
            [self._past_counters, *(report.metrics for report in reports), metrics.collect()]
        )
        return self._build_status(sum(report.streams for report in reports), families)

    async def drain(self, seconds: float) -> None:
        """Returns when all processes have drained."""
        self._is_stopping = True
        for process in self._processes.values():
            process.channel.send(Drain(seconds))
        while pending := [process.drained for process in self._processes.values() if not process.drained.done()]:
            await asyncio.wait(pending)

    async def stop(self) -> None:
        """Ends all processes at once; kills those that do not end by themselves."""
        self._is_stopping = True
        for process in self._processes.values():
            process.channel.send(Stop())
        if self._health_checks:
            self._health_checks.cancel()
        for timeout in (STOP_TIMEOUT, None):
            if self._reader_tasks:
                await asyncio.wait(self._reader_tasks, timeout=timeout)
            for process in self._processes.values():
                process.kill()
        self.failed.cancel()

    async def _start_process(self) -> _ServerProcess:
        number = next(self._process_numbers)
        ours, theirs = socket.socketpair()
        child = multiprocessing.get_context("spawn").Process(
            target=_run_server_process,
            args=(self._settings, self._plan, replace(self._identity, number=number), theirs, logs.current_config()),
            name=f"conure-server-{number}",
        )
        child.start()
        theirs.close()
        max_missed = max(math.ceil(self._settings.start_seconds / CHECK_INTERVAL), MAX_MISSED_CHECKS)
        channel = await ControlChannel.from_socket(ours)
        process = self._processes[number] = _ServerProcess(number, child, channel, max_missed)
        reader = start_task(self._supervise(process), "reading from a server process")
        self._reader_tasks.add(reader)
        reader.add_done_callback(self._reader_tasks.discard)
        return process

    async def _supervise(self, process: _ServerProcess) -> None:
        """Runs for the lifetime of a process. If its messages cannot be read, it is killed, and restarted as usual."""
        try:
            await self._read_messages(process)
        except Exception as error:
            report_failure("reading from a server process", error)
            process.kill()
        self._ledger.release_process(process.number)
        await asyncio.to_thread(process.join)
        del self._processes[process.number]
        self._count_silent()
        self._past_counters = metrics.sum_families([self._past_counters, metrics.counters(process.report.metrics)])
        if process.on_exit() and not self._is_stopping:
            await self._restart(process)

    async def _read_messages(self, process: _ServerProcess) -> None:
        status_tasks: set[asyncio.Task[None]] = set()
        while message := await process.channel.receive():
            process.note_message()
            match message:
                case StatusRequest(number):
                    task = start_task(self._send_status(process, number), "reporting the server status")
                    report_if_failed(task, "reporting the server status")
                    status_tasks.add(task)
                    task.add_done_callback(status_tasks.discard)
                case BeginUsage() | ReserveUsage() | SpendUsage() | EndUsage():
                    if response := self._ledger.handle_request(process.number, message, time.monotonic()):
                        process.channel.send(response)
                case ServerOpened():
                    self._failed_starts = 0
                    process.handle(message)
                case _:
                    process.handle(message)

    async def _send_status(self, process: _ServerProcess, number: int) -> None:
        status = await self.collect_status()
        process.channel.send(StatusResponse(number, status.status, status.metrics))

    async def _restart(self, process: _ServerProcess) -> None:
        """A process that cannot be started counts as one that died."""
        reason = process.exit_reason
        while self._failed_starts < MAX_FAILED_STARTS:
            self._failed_starts += 1
            log.error("%s; restarting it", reason)
            try:
                (await self._start_process()).is_replacement = True
                metrics.SERVER_RESTARTS.labels("hung" if process.is_hung else "died").inc()
                return
            except OSError as error:
                reason = f"cannot start a server process: {error.strerror or error}"
                await asyncio.sleep(RETRY_DELAY)
        log.critical("%s; restart limit reached (%d in a row)", reason, MAX_FAILED_STARTS)
        if not self._processes and not self.failed.done():
            self.failed.set_exception(EngineFailed("all server processes died", "see the log"))

    async def _check_health(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            for process in self._processes.values():
                process.check()
            self._count_silent()

    def _count_silent(self) -> None:
        metrics.SERVERS_SILENT.set(sum(process.is_silent for process in self._processes.values()))


class _ServerProcess:
    """The supervisor's view of one server process."""

    def __init__(
        self, number: int, process: multiprocessing.process.BaseProcess, channel: ControlChannel, max_missed: int
    ) -> None:
        """`max_missed`: health checks that may be missed while it starts."""
        loop = asyncio.get_running_loop()
        self.exit_reason = f"server process {number} died"
        self.number = number
        self.channel = channel
        self.opened: asyncio.Future[None] = loop.create_future()
        self.drained: asyncio.Future[None] = loop.create_future()
        self.pending_reports: dict[int, asyncio.Future[None]] = {}
        """Report requests without a response, by number."""
        self.report = Report()
        """The last one."""
        self.is_replacement = False
        """It was started because another one died."""
        self.is_hung = False
        """It was killed because it did not respond."""
        self._missed, self._max_missed, self._has_responded = 0, max_missed, False
        self._process = process
        assert process.pid
        self.pid = process.pid

    def request_report(self, number: int) -> asyncio.Future[None]:
        """The future is done when the process has responded or is gone."""
        pending = self.pending_reports[number] = asyncio.get_running_loop().create_future()
        self.channel.send(ReportRequest(number))
        return pending

    @property
    def is_silent(self) -> bool:
        """It has responded before, but not to the last checks."""
        return self._has_responded and self._missed >= SILENT_CHECKS

    def check(self) -> None:
        """Counts checks and not seconds, so that no check is missed while the parent itself is blocked."""
        was_silent = self.is_silent
        self._missed += 1
        if self._missed > self._max_missed:
            self.is_hung = True
            self.exit_reason = f"server process {self.number} does not respond and is killed"
            self.kill()
        elif self.is_silent and not was_silent:
            log.warning("server process %d does not respond", self.number)
        self.channel.send(ReportRequest(UNSOLICITED))

    def note_message(self) -> None:
        if self.is_silent:
            log.warning("server process %d responds again", self.number)
        self._missed, self._max_missed, self._has_responded = 0, MAX_MISSED_CHECKS, True

    def handle(self, message: object) -> None:
        match message:
            case ServerOpened():
                _resolve(self.opened)
            case Drained():
                _resolve(self.drained)
            case ReportResponse(number, report):
                self.report = report
                if pending := self.pending_reports.get(number):
                    _resolve(pending)
            case StartFailed(name, text, hint):
                kind: type[ConureError] = getattr(errors, name, EngineFailed)
                self.exit_reason += f": {text}"
                if not self.opened.done():
                    self.opened.set_exception(kind(text, hint))

    def on_exit(self) -> bool:
        """Resolves everything that waits for the process. True if it should be restarted; else `start` raises."""
        was_open = self.opened.done() and not self.opened.exception()
        for pending in (self.drained, *self.pending_reports.values()):
            _resolve(pending)
        if not self.opened.done():
            self.opened.set_exception(EngineFailed(self.exit_reason, "see its log"))
        self.opened.exception()  # marks it as retrieved: `start` may not be waiting for it
        self.channel.close()
        return was_open or self.is_replacement

    def kill(self) -> None:
        self._process.kill()

    def join(self) -> None:
        """Blocks until the process has ended; kills it if that takes too long."""
        self._process.join(STOP_TIMEOUT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _run_server_process(
    settings: Settings,
    plan: Plan,
    identity: ProcessIdentity,
    connection: socket.socket,
    log_config: tuple[logs.Detail, bool],
) -> None:
    from conure.processes.server_process import run  # noqa: PLC0415  it imports the web framework, which the parent never does

    run(settings, plan, identity, connection, log_config)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
