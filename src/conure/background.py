"""Tasks and threads that run in the background: each has a name, and none ends unnoticed.

    start_task               the caller awaits it and gets its error
    start_critical_task      runs until its owner cancels it; if it ends otherwise, its owner is told and ends, too
    start_restarting_task    is started again when it ends
    thread                   on a thread; if it fails, its owner is told

What ends unexpectedly is logged under its name and counted (`conure_background_failures_total`).
`log_unhandled_errors` does so for tasks that libraries start and nobody awaits.
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
    "thread",
    "log_unhandled_errors",
]

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds before a task is begun again."""
OTHERS = "other"
"""The name under which tasks of libraries are counted: theirs are numbers."""

Result = TypeVar("Result")
Failed = Callable[[ConureError], object]
"""Told what became of a task or thread that should have gone on."""


def start_task(work: Coroutine[Any, Any, Result], name: str) -> asyncio.Task[Result]:
    """A task that the caller awaits. `name` is a constant: it is a label of a metric."""
    return asyncio.get_running_loop().create_task(work, name=name)


def start_critical_task(work: Coroutine[Any, Any, None], name: str, on_end: Failed) -> asyncio.Task[None]:
    """A task without an end of its own: `on_end` is called where it fails or returns, not where it is cancelled."""
    task = start_task(work, name)

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            on_end(report_failure(name, task.exception()))

    task.add_done_callback(ended)
    return task


def start_restarting_task(begin: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
    """A task that is begun again, after a pause, where it fails or returns; until it is cancelled."""

    async def go_on() -> None:
        while True:
            error: Exception | None = None
            try:
                await begin()
            except Exception as found:
                error = found
            report_failure(name, error)
            await asyncio.sleep(PAUSE)

    return start_task(go_on(), name)


def thread(
    run: Callable[[], None], name: str, on_failure: Failed | None = None, *, daemon: bool = True
) -> threading.Thread:
    """A thread that was started. Returning is no failure; `on_failure` is called on the thread."""

    def guarded() -> None:
        try:
            run()
        except Exception as error:
            found = report_failure(name, error)
            if on_failure:
                on_failure(found)

    started = threading.Thread(target=guarded, name=f"conure {name}", daemon=daemon)
    started.start()
    return started


def report_if_failed(work: asyncio.Future[Any] | Future[Any], name: str) -> None:
    """Whether that fails is asked by nobody else."""

    def ended(work: Any) -> None:
        if not work.cancelled() and (error := work.exception()):
            report_failure(name, error)

    work.add_done_callback(ended)


def report_failure(name: str, error: BaseException | None) -> ConureError:
    """Logs and counts what ended unexpectedly; the error to tell of it. None: it returned."""
    _count(name)
    if isinstance(error, ConureError):
        log.error("%s ended: %s", name, error.message)
        return error
    told = error
    while isinstance(told, BaseExceptionGroup):
        told = told.exceptions[0]
    fate = f"{type(told).__name__}: {told}" if told else "it returned"
    log.error("%s ended unexpectedly: %s", name, fate, exc_info=error)
    return EngineFailed(f"{name} ended unexpectedly: {fate}", "the log tells more with --debug; please report it")


def log_unhandled_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Logs and counts errors of tasks and callbacks that nobody asks for."""

    def unasked(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        fate = f": {type(error).__name__}: {error}" if error else ""
        log.error("%s%s", context["message"], fate, exc_info=error)
        _count(OTHERS)

    loop.set_exception_handler(unasked)


def _count(name: str) -> None:
    from conure.metrics import BACKGROUND_FAILURES  # noqa: PLC0415  the engine's process measures nothing

    BACKGROUND_FAILURES.labels(name).inc()
