"""The event loop that servers and crowds of clients run on."""

from __future__ import annotations

import asyncio
import sys

__all__ = ["event_loop"]


def event_loop() -> asyncio.AbstractEventLoop:
    """The fastest that there is: a server wakes up for every packet of every stream."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415  it is not there on Windows

    return uvloop.new_event_loop()
