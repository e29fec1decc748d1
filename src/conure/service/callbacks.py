"""Callbacks: results that are sent later, to URLs of clients.

They are kept in memory: a server that is killed loses them, one that drains sends what it can in time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx2

from conure.background import start_task
from conure.errors import Busy, ConureError
from conure.service.process_identity import SINGLE_PROCESS, ProcessIdentity
from conure.service.safe_http import SafeHttp

__all__ = ["Callback", "Callbacks"]

log = logging.getLogger(__name__)

MAX_PENDING = 256
"""Of all processes of the server."""
DELAYS = (1.0, 5.0, 25.0)
"""Seconds after each failed attempt; after one more attempt the callback is dropped."""
RETRY_AFTER = 5.0


@dataclass(frozen=True)
class Callback:
    url: httpx2.URL
    method: str = "POST"


class Callbacks:
    def __init__(
        self, http: SafeHttp, identity: ProcessIdentity = SINGLE_PROCESS, delays: Sequence[float] = DELAYS
    ) -> None:
        self._http = http
        self._max_pending = identity.share_of(MAX_PENDING)
        self._delays = delays
        self._pending: set[asyncio.Task[None]] = set()
        self._is_draining = False

    async def check_url(self, callback: Callback) -> None:
        """Raises BadOption or AudioNotFound for a URL that must not be requested."""
        await self._http.resolve_allowed(callback.url)

    def schedule(self, callback: Callback, work: Callable[[], Awaitable[bytes]], needed: AsyncExitStack) -> None:
        """Runs `work` and sends its result, JSON, to the callback. Raises Busy; then nothing is started.

        `needed` is emptied; what was in it is closed when the work is done.
        """
        if self._is_draining:
            raise Busy("the server is about to stop", "retry later or use another server", RETRY_AFTER)
        if len(self._pending) >= self._max_pending:
            raise Busy(f"too many pending callbacks ({len(self._pending)})", "retry later")
        task = start_task(self._run(callback, work, needed.pop_all()), "sending a callback")
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def drain(self, seconds: float) -> None:
        """Accepts no new ones; returns when all are sent or dropped, or after so many seconds."""
        self._is_draining = True
        if self._pending:
            await asyncio.wait(self._pending, timeout=seconds)

    async def close(self) -> None:
        """Cancels pending callbacks."""
        self._is_draining = True
        if pending := tuple(self._pending):
            log.warning("%d callbacks are not sent", len(pending))
            for task in pending:
                task.cancel()
            await asyncio.wait(pending)

    async def _run(self, callback: Callback, work: Callable[[], Awaitable[bytes]], needed: AsyncExitStack) -> None:
        try:
            async with needed:
                body = await work()
            for delay in (*self._delays, None):
                failure = await self._send(callback, body)
                if failure is None:
                    return
                if delay is not None:
                    await asyncio.sleep(delay)
            log.warning("dropping a callback to %s: %s", callback.url.host, failure)
        except Exception:
            log.exception("a callback to %s failed", callback.url.host)

    async def _send(self, callback: Callback, body: bytes) -> str | None:
        """The reason of a failure; None on success."""
        json = {"Content-Type": "application/json"}
        try:
            async with self._http.request(callback.method, callback.url, body, json) as response:
                return None if response.is_success else f"HTTP status {response.status_code}"
        except ConureError as error:
            return error.message
        except httpx2.TransportError as error:
            return str(error) or type(error).__name__
