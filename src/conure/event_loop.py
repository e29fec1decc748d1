"""The event loop of servers and load generators, and how to detect that the process was suspended."""

from __future__ import annotations

import asyncio
import sys

__all__ = ["new_event_loop", "suspended_seconds"]

MIN_STALL = 2.0
"""Seconds of delay of a timer from which the cause is not a slow loop, but a process that did not run at all."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop where it is available: a server wakes up for every packet of every stream."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415  not available on Windows

    return uvloop.new_event_loop()


def suspended_seconds(due: float, now: float) -> float:
    """Seconds for which this process was stopped or had no CPU: a timer of `due` runs at `now`. Usually 0.

    Data that arrived in that time may still be unread, and peers that wait for a response had no chance to send more.
    Timeouts of peers must not count this time.
    """
    late = now - due
    return late if late > MIN_STALL else 0.0
