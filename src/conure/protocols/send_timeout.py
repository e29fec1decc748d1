"""How long a client may take to read what it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from conure.service.events import Failed

__all__ = ["CLIENT_TOO_SLOW", "ClientTooSlow", "with_send_timeout"]

SEND_TIMEOUT_SECONDS = 20.0
CLIENT_TOO_SLOW = Failed(
    "client_too_slow", f"nothing was read for {SEND_TIMEOUT_SECONDS:g} s", "read events as they come"
)
"""How its stream ends."""


class ClientTooSlow(ConnectionError):
    """The client has not read for so long that its connection is given up."""


async def with_send_timeout(sending: Awaitable[None]) -> None:
    """Raises TooSlow where it takes too long."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
            await sending
    except TimeoutError:
        raise ClientTooSlow(CLIENT_TOO_SLOW.message) from None
