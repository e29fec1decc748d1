"""Limits of gRPC connections. gRPC accepts them itself, so they are identified by the peer address of their calls.

up to `Capacity.grpc` with calls       served
more with calls                        each call is rejected with `Busy`
more than `Capacity.grpc_accepted`     closed by gRPC without an error; logged
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

CHECK_INTERVAL = 5.0
"""Seconds between checks of the number of open connections."""
HINT = "raise max_connections or the limit of file descriptors (ulimit -n)"


class Peers:
    def __init__(self, capacity: Capacity) -> None:
        self._capacity, self._rate_limited_log = capacity, RateLimitedLog(log)
        self._calls: Counter[str] = Counter()
        """Number of open calls by peer address."""

    @contextlib.contextmanager
    def call(self, peer: str) -> Iterator[None]:
        """Counts a call while it is open. Raises Busy."""
        if peer not in self._calls and len(self._calls) >= self._capacity.grpc:
            metrics.CONNECTIONS_ENDED.labels("grpc", REFUSED).inc()
            busy_connections = len(self._calls)
            self._rate_limited_log.warning(
                "rejecting calls of a gRPC connection: %d connections have open calls; %s", busy_connections, HINT
            )
            raise Busy(f"too many gRPC connections with open calls: {busy_connections}", HINT)
        self._calls[peer] += 1
        try:
            yield
        finally:
            self._calls[peer] -= 1
            if not self._calls[peer]:
                del self._calls[peer]

    async def watch(self, port: int) -> None:
        """Logs when gRPC closes connections at the limit. Never returns."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            with contextlib.suppress(psutil.Error):  # the system does not list connections
                self._warn_at_limit(await asyncio.to_thread(_count_connections, port))

    def _warn_at_limit(self, open_connections: int) -> None:
        if open_connections >= self._capacity.grpc_accepted:
            self._rate_limited_log.warning(
                "gRPC has %d connections and closes all others without an error; %s", open_connections, HINT
            )


def _count_connections(port: int) -> int:
    connections = psutil.Process().net_connections("tcp")
    return sum(
        1
        for connection in connections
        if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == port
    )
