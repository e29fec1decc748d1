"""Bars on stderr for work that takes long; only where stderr is a terminal."""

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

from conure.cli.reporter import console, tell
from conure.safe_text import one_line

__all__ = ["audio_bar", "download_bar", "spinner"]

PATIENCE = 1.0
"""Seconds of work before a bar appears."""


class _Bar:
    """A bar that appears once the work has lasted a while."""

    def __init__(self, make: Callable[[], Progress], title: str) -> None:
        self._make = make
        self._title = title
        self._since = time.monotonic()
        self._bar: Progress | None = None

    def update(self, done: float, total: float | None) -> None:
        if self._bar is None:
            if time.monotonic() - self._since < PATIENCE:
                return
            self._bar = self._make()
            self._bar.add_task(one_line(self._title), total=total, since=self._since)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


class _AudioClock(ProgressColumn):
    """Audio done of all audio, and how many times faster than it plays."""

    def render(self, task: Task) -> Text:
        whole = "" if task.total is None else f" of {_clock(task.total)}"
        speed = task.completed / max(0.001, time.monotonic() - task.fields["since"])
        return Text(f"{_clock(task.completed)}{whole}  {speed:.0f} x", no_wrap=True)


@contextmanager
def audio_bar(title: str) -> Iterator[Callable[[float, float | None], None] | None]:
    """A callback that takes seconds done and all seconds; None where nobody would see it."""
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
    """A callback that takes bytes done and all bytes; without a terminal one line says what is going on."""
    if not sys.stderr.isatty():
        yield _told_once(f"downloading {one_line(title)}")
        return
    bar = _Bar(_download_progress, title)
    try:
        yield bar.update
    finally:
        bar.close()


@contextmanager
def spinner(title: str) -> Iterator[None]:
    """Something that moves while nothing can be counted."""
    if not sys.stderr.isatty():
        yield
        return
    with console().status(one_line(title)):
        yield


def _told_once(line: str) -> Callable[[int, int | None], None]:
    """Says so when the first bytes have come, not when there is no network."""
    lines = [line]

    def update(done: int, total: int | None) -> None:
        if lines:
            tell(lines.pop())

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
