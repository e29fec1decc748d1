"""How long a client may take to read what it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from conure.service.events import Failed
from conure.service.live import LiveStream

__all__ = ["TooSlow", "in_time"]

MOST_SECONDS = 20.0


class TooSlow(ConnectionError):
    """The client has not read for so long that its connection is given up."""


async def in_time(sending: Awaitable[None], stream: LiveStream | None) -> None:
    """Raises TooSlow where it takes too long; the stream has failed then."""
    try:
        async with asyncio.timeout(MOST_SECONDS):
            await sending
    except TimeoutError:
        message = f"nothing was read for {MOST_SECONDS:g} s"
        if stream is not None:
            stream.session.stop(Failed("client_too_slow", message, "read events as they come"))
        raise TooSlow(message) from None
