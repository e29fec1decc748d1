"""Background tasks and threads: each has a name, and no failure is lost.

    start_task             the caller awaits it and gets its error
    start_critical_task    runs until it is cancelled; if it ends otherwise, a callback of its owner is called
    start_restarting_task  runs until it is cancelled; it is restarted when it ends
    thread                 a started thread; a callback is called if it fails

Unexpected ends are logged with the name and counted (`conure_background_failures_total`). `log_unhandled_errors` does
the same for tasks that libraries start.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from conure.errors import ConureError, EngineFailed

__all__ = [
    "report_failure",
    "start_critical_task",
    "report_if_failed",
    "start_restarting_task",
    "start_task",
    "spawn_thread",
    "log_unhandled_errors",
]

log = logging.getLogger(__name__)

RESTART_DELAY = 1.0
"""Seconds before a task is restarted."""
LIBRARY_TASKS = "other"
"""Label under which tasks of libraries are counted: their own names are numbers."""

Result = TypeVar("Result")
FailureCallback = Callable[[ConureError], object]
"""Called with the error of a task or thread that ended unexpectedly."""


def start_task(work: Coroutine[Any, Any, Result], name: str) -> asyncio.Task[Result]:
    """Starts a task that the caller awaits. `name` must be a constant: it is a label of a metric."""
    return asyncio.get_running_loop().create_task(work, name=name)


def start_critical_task(work: Coroutine[Any, Any, None], name: str, on_end: FailureCallback) -> asyncio.Task[None]:
    """Starts a task that should run until it is cancelled: `on_end` is called if it fails or returns."""
    task = start_task(work, name)

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            on_end(report_failure(name, task.exception()))

    task.add_done_callback(ended)
    return task


def start_restarting_task(begin: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
    """Starts a task that runs until it is cancelled; when it fails or returns, it is restarted after a delay."""

    async def run() -> None:
        while True:
            error: Exception | None = None
            try:
                await begin()
            except Exception as raised:
                error = raised
            report_failure(name, error)
            await asyncio.sleep(RESTART_DELAY)

    return start_task(run(), name)


def spawn_thread(
    run: Callable[[], None], name: str, on_failure: FailureCallback | None = None, *, daemon: bool = True
) -> threading.Thread:
    """Starts a thread. It may return at any time; if it fails, `on_failure` is called on the thread."""

    def guarded() -> None:
        try:
            run()
        except Exception as error:
            reported = report_failure(name, error)
            if on_failure:
                on_failure(reported)

    started = threading.Thread(target=guarded, name=f"conure {name}", daemon=daemon)
    started.start()
    return started


def report_if_failed(work: asyncio.Future[Any] | Future[Any], name: str) -> None:
    """Reports the failure of a future that nothing awaits."""

    def ended(work: Any) -> None:
        if not work.cancelled() and (error := work.exception()):
            report_failure(name, error)

    work.add_done_callback(ended)


def report_failure(name: str, error: BaseException | None) -> ConureError:
    """Logs and counts an unexpected end, and returns it as an error. `error` is None if the task returned."""
    _count(name)
    if isinstance(error, ConureError):
        log.error("%s ended: %s", name, error.message)
        return error
    cause = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    reason = f"{type(cause).__name__}: {cause}" if cause else "it returned"
    log.error("%s ended unexpectedly: %s", name, reason, exc_info=error)
    return EngineFailed(f"{name} ended unexpectedly: {reason}", "run it with --debug for details; please report it")


def log_unhandled_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Logs and counts errors of tasks and callbacks that no code retrieves."""

    def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        reason = f": {type(error).__name__}: {error}" if error else ""
        log.error("%s%s", context["message"], reason, exc_info=error)
        _count(LIBRARY_TASKS)

    loop.set_exception_handler(report)


def _count(name: str) -> None:
    from conure.metrics import BACKGROUND_FAILURES  # noqa: PLC0415  the engine process has no metrics

    BACKGROUND_FAILURES.labels(name).inc()
