"""Connections of gRPC: it accepts them itself, so they are known by the address that their calls come from.

with calls, up to `Capacity.grpc`     answered
more with calls                   each call is told that there is no room, and why
more than `Capacity.grpc_accepted`    closed by gRPC without a word; the log tells that it happens
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterator

import psutil

from conure import metrics
from conure.errors import Busy
from conure.log import RateLimitedLog
from conure.protocols.http.connection_limits import REFUSED, Capacity

__all__ = ["Peers"]

log = logging.getLogger(__name__)

LOOK = 5.0
"""Seconds between looks at how many the system knows."""
HINT = "max_connections, or the limit of descriptors (ulimit -n), is too low for so many"


class Peers:
    def __init__(self, room: Capacity) -> None:
        self._room, self._rarely = room, RateLimitedLog(log)
        self._calls: Counter[str] = Counter()
        """Open ones of each connection."""

    @contextlib.contextmanager
    def call(self, peer: str) -> Iterator[None]:
        """While one goes on. Raises Busy."""
        if peer not in self._calls and len(self._calls) >= self._room.grpc:
            metrics.CONNECTIONS_ENDED.labels("grpc", REFUSED).inc()
            others = len(self._calls)
            self._rarely.warning("calls of a gRPC connection are refused: %d others have some; %s", others, HINT)
            raise Busy(f"{others} gRPC connections have calls, and there is room for no more", HINT)
        self._calls[peer] += 1
        try:
            yield
        finally:
            self._calls[peer] -= 1
            if not self._calls[peer]:
                del self._calls[peer]

    async def watch(self, port: int) -> None:
        """Tells of connections that gRPC closes without a word. Never returns."""
        while True:
            await asyncio.sleep(LOOK)
            with contextlib.suppress(psutil.Error):  # the system does not tell
                self._look(await asyncio.to_thread(_open_at, port))

    def _look(self, open_now: int) -> None:
        if open_now >= self._room.grpc_accepted:
            self._rarely.warning("gRPC has %d connections and closes all others without a word; %s", open_now, HINT)


def _open_at(port: int) -> int:
    found = psutil.Process().net_connections("tcp")
    return sum(1 for one in found if one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port)
