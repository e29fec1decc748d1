"""Answers that are sent later, to addresses that clients name.

They are kept in memory: a server that is killed forgets them, one that is told to stop sends what it can in time.
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

MOST = 256
"""That are owed at a time, by all processes of the server."""
DELAYS = (1.0, 5.0, 25.0)
"""Seconds after each attempt that failed; one more attempt, and it is given up."""
RETRY_AFTER = 5.0


@dataclass(frozen=True)
class Callback:
    url: httpx2.URL
    method: str = "POST"


class Callbacks:
    def __init__(
        self, outside: SafeHttp, place: ProcessIdentity = SINGLE_PROCESS, delays: Sequence[float] = DELAYS
    ) -> None:
        self._outside = outside
        self._most = place.share_of(MOST)
        self._delays = delays
        self._owed: set[asyncio.Task[None]] = set()
        self._draining = False

    async def check_url(self, callback: Callback) -> None:
        """Raises BadOption or AudioNotFound for an address that nothing may be sent to."""
        await self._outside.resolve_allowed(callback.url)

    def schedule(self, callback: Callback, work: Callable[[], Awaitable[bytes]], needed: AsyncExitStack) -> None:
        """What the work gives, JSON, is sent there. Raises Busy, and then nothing is begun.

        `needed` is emptied, and what was in it closed when the work is done.
        """
        if self._draining:
            raise Busy("the server is about to stop", "ask another server, or again", RETRY_AFTER)
        if len(self._owed) >= self._most:
            raise Busy(f"{len(self._owed)} callbacks are owed already", "try again in a while")
        owed = start_task(self._keep(callback, work, needed.pop_all()), "sending a callback")
        self._owed.add(owed)
        owed.add_done_callback(self._owed.discard)

    async def drain(self, seconds: float) -> None:
        """No new ones; returns when all are sent or given up, or after so many seconds."""
        self._draining = True
        if self._owed:
            await asyncio.wait(self._owed, timeout=seconds)

    async def close(self) -> None:
        """What is still owed is given up."""
        self._draining = True
        if owed := tuple(self._owed):
            log.warning("%d callbacks are not sent", len(owed))
            for task in owed:
                task.cancel()
            await asyncio.wait(owed)

    async def _keep(self, callback: Callback, work: Callable[[], Awaitable[bytes]], needed: AsyncExitStack) -> None:
        try:
            async with needed:
                body = await work()
            for delay in (*self._delays, None):
                failure = await self._send(callback, body)
                if failure is None:
                    return
                if delay is not None:
                    await asyncio.sleep(delay)
            log.warning("a callback to %s is given up: %s", callback.url.host, failure)
        except Exception:
            log.exception("a callback to %s is lost", callback.url.host)

    async def _send(self, callback: Callback, body: bytes) -> str | None:
        """What went wrong."""
        json = {"Content-Type": "application/json"}
        try:
            async with self._outside.request(callback.method, callback.url, body, json) as answer:
                return None if answer.is_success else f"it answers {answer.status_code}"
        except ConureError as error:
            return error.message
        except httpx2.TransportError as error:
            return str(error) or type(error).__name__
