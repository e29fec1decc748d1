"""Waiting until something is so: long, as other work may have the cores, and with a word on what did not happen."""

from __future__ import annotations

import asyncio
import linecache
import time
from collections.abc import Callable
from typing import Any

__all__ = ["PATIENCE", "until", "wait_for"]

PATIENCE = 300.0
"""Seconds: as long as a test waits for anything that happens at all. None measures time."""
PAUSE = 0.02


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE, what: str = "") -> None:
    """Looks again and again. Without `what` it is told by the line of the condition."""
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last, _told(condition, seconds, what)
        time.sleep(PAUSE)


async def until(condition: Callable[[], Any], seconds: float = PATIENCE, what: str = "") -> None:
    """The same in an event loop, which goes round in between."""
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last, _told(condition, seconds, what)
        await asyncio.sleep(PAUSE / 10)


def _told(condition: Callable[[], Any], seconds: float, what: str) -> str:
    if not what and (code := getattr(condition, "__code__", None)):
        line = linecache.getline(code.co_filename, code.co_firstlineno).strip()
        what = f"{code.co_filename}:{code.co_firstlineno}: {line}"
    return f"waited {seconds:g} s for {what or condition}"
