"""The event loop that servers and crowds of clients run on, and how it is known that it stood still."""

from __future__ import annotations

import asyncio
import sys

__all__ = ["new_event_loop", "held_up"]

HELD_UP = 2.0
"""Seconds by which a timer is late where not this loop was slow, but the whole process did not run."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The fastest that there is: a server wakes up for every packet of every stream."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415  it is not there on Windows

    return uvloop.new_event_loop()


def held_up(due: float, now: float) -> float:
    """Seconds for which this process was stopped, or got no processor, when a timer of `due` rings at `now`; mostly 0.

    What the process was sent meanwhile may still have to be read, and who waits for its answer could say nothing:
    whatever is held against others by the clock has to let that time be.
    """
    late = now - due
    return late if late > HELD_UP else 0.0
