"""Every unexpected end in the background is reported, and tasks are started only through `conure.background`."""

from __future__ import annotations

import ast
import asyncio
import gc
import logging
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

import conure
from conure import background, metrics
from conure.background import (
    log_unhandled_errors,
    report_if_failed,
    spawn_thread,
    start_critical_task,
    start_restarting_task,
    start_task,
)
from conure.errors import BadOption, ConureError, EngineFailed

SOURCES = Path(conure.__file__).parent
APART = ("background.py", "client/")
"""The client is used without the rest: its one task keeps its errors for whoever reads the stream."""
STARTERS = {"create_task", "ensure_future", "Thread"}
GROUPS = {"tasks", "self._tasks"}
"""Names of task groups: whoever opened one waits for its tasks, and gets their errors."""
PATIENCE = 60.0


def counted(task: str) -> float:
    return metrics.REGISTRY.get_sample_value("conure_background_failures_total", {"task": task}) or 0.0


def starts(path: Path) -> list[str]:
    """Where a task or a thread is started without us."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        of = ast.unparse(called.value) if isinstance(called, ast.Attribute) else ""
        if name in STARTERS and of not in GROUPS:
            found.append(f"{path.relative_to(SOURCES)}:{node.lineno}: {ast.unparse(called)}")
    return found


def test_everything_in_the_background_is_started_by_name() -> None:
    paths = [path for path in SOURCES.rglob("*.py") if not str(path.relative_to(SOURCES)).startswith(APART)]
    assert len(paths) > 100
    assert [line for path in paths for line in starts(path)] == []
    assert starts(SOURCES / "background.py")


async def broken() -> None:
    raise ZeroDivisionError("a mistake of ours")


async def over() -> None:
    pass


async def endless() -> None:
    await asyncio.Event().wait()


def test_an_awaited_task_raises_its_error() -> None:
    async def talk() -> None:
        before = counted("a task")
        with pytest.raises(ZeroDivisionError):
            await start_task(broken(), "a task")
        assert counted("a task") == before

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("work", "fate"),
    [(broken, "a kept task ended unexpectedly: ZeroDivisionError: a mistake of ours"), (over, "it returned")],
)
def test_the_end_of_a_critical_task_is_reported(work: object, fate: str, caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> None:
        told: asyncio.Future[ConureError] = asyncio.get_running_loop().create_future()
        before = counted("a kept task")
        start_critical_task(work(), "a kept task", told.set_result)  # type: ignore[operator]
        error = await asyncio.wait_for(told, PATIENCE)
        assert isinstance(error, EngineFailed)
        assert fate in error.message
        assert counted("a kept task") == before + 1

    asyncio.run(talk())
    assert "a kept task ended unexpectedly" in caplog.text


def test_a_conure_error_is_reported_unchanged() -> None:
    async def refused() -> None:
        raise BadOption("no such device", "take another")

    async def talk() -> None:
        told: asyncio.Future[ConureError] = asyncio.get_running_loop().create_future()
        start_critical_task(refused(), "a kept task", told.set_result)
        assert isinstance(await asyncio.wait_for(told, PATIENCE), BadOption)

    asyncio.run(talk())


def test_a_cancelled_critical_task_has_not_failed() -> None:
    async def talk() -> None:
        told: list[ConureError] = []
        task = start_critical_task(endless(), "a kept task", told.append)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        assert told == []

    asyncio.run(talk())


def test_a_restarting_task_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "RESTART_DELAY", 0.0)

    async def talk() -> None:
        begun, often = 0, asyncio.Event()
        before = counted("a repeated task")

        async def work() -> None:
            nonlocal begun
            begun += 1
            if begun == 5:
                often.set()
                await endless()
            if begun % 2:
                await broken()

        task = start_restarting_task(work, "a repeated task")
        await asyncio.wait_for(often.wait(), PATIENCE)
        assert counted("a repeated task") == before + 4
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(talk())


def test_a_failed_thread_is_reported() -> None:
    told: list[ConureError] = []
    before = counted("a thread")

    def fail() -> None:
        raise ZeroDivisionError("a mistake of ours")

    for run in (fail, lambda: None):
        started = spawn_thread(run, "a thread", told.append)
        started.join(PATIENCE)
        assert not started.is_alive()
    assert [error.message for error in told] == ["a thread ended unexpectedly: ZeroDivisionError: a mistake of ours"]
    assert counted("a thread") == before + 1
    assert threading.active_count() >= 1


def test_unretrieved_errors_are_logged() -> None:
    before = counted("a future")
    sound: Future[None] = Future()
    lost: Future[None] = Future()
    for future in (sound, lost):
        report_if_failed(future, "a future")
    sound.set_result(None)
    lost.set_exception(ZeroDivisionError())
    assert counted("a future") == before + 1


def test_tasks_of_libraries_are_watched(caplog: pytest.LogCaptureFixture) -> None:
    before = counted(background.LIBRARY_TASKS)

    async def talk() -> None:
        loop = asyncio.get_running_loop()
        log_unhandled_errors(loop)
        task = loop.create_task(broken())
        await asyncio.wait([task])
        del task
        gc.collect()
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with caplog.at_level(logging.ERROR):
        asyncio.run(talk())
    assert counted(background.LIBRARY_TASKS) == before + 2
    assert "ZeroDivisionError: a mistake of ours" in caplog.text
