"""Timeout for sending to a client that does not read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from conure.service.events import Failed

__all__ = ["CLIENT_TOO_SLOW", "ClientTooSlow", "with_send_timeout"]

SEND_TIMEOUT_SECONDS = 20.0
CLIENT_TOO_SLOW = Failed(
    "client_too_slow", f"nothing was read for {SEND_TIMEOUT_SECONDS:g} s", "read events as they arrive"
)
"""The last event of its stream."""


class ClientTooSlow(ConnectionError):
    """The client did not read within the timeout; its connection is closed."""


async def with_send_timeout(sending: Awaitable[None]) -> None:
    """Awaits `sending`. Raises ClientTooSlow on timeout."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
            await sending
    except TimeoutError:
        raise ClientTooSlow(CLIENT_TOO_SLOW.message) from None
