"""Progress bars on stderr, if stderr is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from conure.cli.reporter import console, print_stderr
from conure.safe_text import one_line

__all__ = ["audio_bar", "download_bar", "spinner"]

DELAY = 1.0
"""Seconds of work before a bar appears."""


class _Bar:
    """A bar that appears after DELAY."""

    def __init__(self, make: Callable[[], Progress], title: str) -> None:
        self._make = make
        self._title = title
        self._started_at = time.monotonic()
        self._bar: Progress | None = None

    def update(self, done: float, total: float | None) -> None:
        if self._bar is None:
            if time.monotonic() - self._started_at < DELAY:
                return
            self._bar = self._make()
            self._bar.add_task(one_line(self._title), total=total, started_at=self._started_at)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


class _AudioClock(ProgressColumn):
    """Transcribed and total duration, and the speed as a multiple of real time."""

    def render(self, task: Task) -> Text:
        whole = "" if task.total is None else f" of {_clock(task.total)}"
        speed = task.completed / max(0.001, time.monotonic() - task.fields["started_at"])
        return Text(f"{_clock(task.completed)}{whole}  {speed:.0f}x real time", no_wrap=True)


@contextmanager
def audio_bar(title: str) -> Iterator[Callable[[float, float | None], None] | None]:
    """A callback that takes seconds done and in total; None without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    bar = _Bar(_audio_progress, title)
    try:
        yield bar.update
    finally:
        bar.close()


@contextmanager
def download_bar(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A callback that takes bytes done and in total; without a terminal it prints one line."""
    if not sys.stderr.isatty():
        yield _print_once(f"downloading {one_line(title)}")
        return
    bar = _Bar(_download_progress, title)
    try:
        yield bar.update
    finally:
        bar.close()


@contextmanager
def spinner(title: str) -> Iterator[None]:
    """A spinner for work whose progress is unknown."""
    if not sys.stderr.isatty():
        yield
        return
    with console().status(one_line(title)):
        yield


def _print_once(line: str) -> Callable[[int, int | None], None]:
    """Prints the line when the first bytes arrive, so not without a network."""
    lines = [line]

    def update(done: int, total: int | None) -> None:
        if lines:
            print_stderr(lines.pop())

    return update


def _audio_progress() -> Progress:
    columns = (_title_column(), BarColumn(), _AudioClock(), TimeRemainingColumn())
    return Progress(*columns, console=console(), transient=True, redirect_stdout=False)


def _download_progress() -> Progress:
    columns = (_title_column(), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console(), transient=True, redirect_stdout=False)


def _title_column() -> TextColumn:
    return TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
