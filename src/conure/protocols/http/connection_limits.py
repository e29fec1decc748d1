"""Limits the number of connections and their idle times: one policy for all ports except gRPC.

    accepted ──> unidentified ── a key, or without keys a complete request ──> identified ──> closed
                     └── over the limit, or timed out: the oldest is closed

Any client can occupy a socket, so connections without a key share only a part of the capacity. When that part is full,
the oldest one is closed: a client with a key sends it in its first bytes, so a connection that has been unidentified
for long has none. Without keys, the first complete request or message identifies a connection. Idle connections
(keep-alive) are closed to make room, too. The rest of the capacity is reserved for connections with a key.

Protocols check the timeouts that depend on their content; the durations are here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import psutil

from conure import metrics
from conure.event_loop import suspended_seconds
from conure.log import RateLimitedLog

__all__ = [
    "BODY_BYTES",
    "BODY_SECONDS",
    "OVER_CAPACITY",
    "FIRST_MESSAGE_SECONDS",
    "FLUSH_SECONDS",
    "HANDSHAKE_SECONDS",
    "HEAD_SECONDS",
    "IDLE_SECONDS",
    "TIMED_OUT",
    "REFUSED",
    "KEEP_ALIVE_SECONDS",
    "Connection",
    "ConnectionLimits",
    "Capacity",
]

log = logging.getLogger(__name__)

HEAD_SECONDS = 10.0
"""For the head of a request, from its first byte; if keys are required, for the first message that carries the key."""
HANDSHAKE_SECONDS = 10.0
"""For a TLS handshake."""
BODY_SECONDS, BODY_BYTES = 30.0, 30
"""A body may take hours, but at least `BODY_BYTES` must arrive in each period of `BODY_SECONDS`."""
KEEP_ALIVE_SECONDS = 75
"""Between two requests; longer than the keep-alive of clients, so that a request does not meet a closing connection."""
FIRST_MESSAGE_SECONDS, IDLE_SECONDS = 300.0, 3600.0
"""A WebSocket without messages in either direction (pings do not count): before the first message, and later."""
FLUSH_SECONDS = 5.0
"""A closing connection whose client reads none of the unsent bytes."""

CHECK_SECONDS = 0.5
MAX_DESCRIPTORS = 65_536
"""Requested from the system."""
UNLIMITED_CONNECTIONS = 4_096
"""Connections if the system has no limit of descriptors."""
MAX_UNIDENTIFIED = 4_096
"""Default; each takes some 30 KB."""
TIMED_OUT, OVER_CAPACITY, REFUSED = "late", "crowded", "refused"
"""Reasons for closing a connection: its own timeout, to make room, or on accept."""
MIN_CONNECTIONS = 4
"""Lower bound of each limit."""
MAX_CLOSING = 8
"""Connections over the total while others are being closed to make room: that takes one iteration of the event loop."""


@dataclass(frozen=True)
class Capacity:
    """Connection limits of one process."""

    total: int = UNLIMITED_CONNECTIONS
    """Of the ports with our own acceptor: web, TCP, Wyoming, status."""
    unidentified: int = UNLIMITED_CONNECTIONS // 2
    """Of these, the ones without a key."""
    grpc: int = UNLIMITED_CONNECTIONS // 4
    """Additional gRPC connections whose calls are served. Calls on others fail with an error."""
    grpc_accepted: int = UNLIMITED_CONNECTIONS // 2
    """Limit for gRPC's own acceptor, which closes connections over the limit without an error."""

    @staticmethod
    def from_descriptor_limit(max_total: int | None = None, unidentified: int | None = None) -> Capacity:
        """Derives the limits from the limit of descriptors, less those open now and an eighth of all for files.

        `max_total`, `unidentified`: configured limits, applied if there are enough descriptors.
        """
        limit = _raised_limit()
        if limit is None:
            free, accepted = UNLIMITED_CONNECTIONS, UNLIMITED_CONNECTIONS // 2
        else:
            free = limit - _open_descriptors() - max(16, limit // 8)
            accepted = max(MIN_CONNECTIONS, min(free // 4, UNLIMITED_CONNECTIONS))
            free -= accepted
        total = max(MIN_CONNECTIONS, min(free, max_total or free))
        without_key = unidentified or min(total // 2, MAX_UNIDENTIFIED)
        served = accepted - max(1, accepted // 8)
        return Capacity(total, max(1, min(without_key, total - 1)), min(served, max_total or served), accepted)


class ConnectionOwner(Protocol):
    """The protocol or handshake that currently uses a connection."""

    def end(self, reason: str) -> None:
        """Sends the reason in the protocol's format and closes the connection. `reason`: TIMED_OUT or OVER_CAPACITY."""
        ...


class Connection:
    """An accepted connection. Its owner reports its state (identified, idle, busy, closed) and sets its deadlines."""

    def __init__(self, limits: ConnectionLimits, port: str) -> None:
        self.port = port
        self.is_identified = False
        """It has a valid key; or, without keys, sent a complete request or message."""
        self._limits = limits
        self._owner: ConnectionOwner | None = None
        self._transport: asyncio.Transport | None = None
        self._deadline = float("inf")
        self._on_deadline: Callable[[], None] = self._time_out
        self._is_closing = False
        self._unsent, self._stalled_at = 0, 0.0
        """While closing: unsent bytes, and the time since which their number has not changed."""

    def set_owner(self, owner: ConnectionOwner, transport: asyncio.Transport | None) -> None:
        """Replaces the owner, for example after an upgrade. `transport` is None during a handshake."""
        self._owner, self._transport = owner, transport

    def mark_identified(self) -> None:
        """The client has a valid key."""
        if not self.is_identified:
            self.is_identified = True
            self._limits.update(self)

    def mark_message_received(self) -> None:
        """The client sent a complete request or message, which identifies it if no keys are required."""
        if not self._limits.needs_key:
            self.mark_identified()

    def mark_idle(self) -> None:
        """No request is active: the connection may be closed to make room."""
        self._limits.update(self, idle=True)

    def mark_busy(self) -> None:
        """A request is active again."""
        self._limits.update(self)

    def set_deadline(self, seconds: float, on_deadline: Callable[[], None] | None = None) -> None:
        """After so many seconds `on_deadline` is called; the default closes the connection."""
        self._deadline = time.monotonic() + seconds
        self._on_deadline = on_deadline or self._time_out

    def clear_deadline(self) -> None:
        self._deadline = float("inf")

    def extend_deadline(self, seconds: float) -> None:
        self._deadline += seconds
        if self._stalled_at:
            self._stalled_at += seconds

    def close(self, reason: str) -> None:
        """Closes the connection gracefully; bytes that the client does not read are dropped after a timeout."""
        self.mark_closing(reason)
        try:
            if self._owner:
                self._owner.end(reason)
        except Exception:  # must not prevent the admission of another connection
            log.exception("closing a connection of port %s failed", self.port)
            self.abort()

    def mark_closing(self, reason: str) -> None:
        """The owner has begun to close the connection."""
        self.clear_deadline()
        if not self._is_closing:
            self._is_closing = True
            self._limits.mark_closing(self)
            metrics.CONNECTIONS_ENDED.labels(self.port, reason).inc()

    def linger(self) -> None:
        """The owner has sent its last bytes and drops further input: an early close would reset the connection, and the
        client would lose those bytes."""
        self.set_deadline(FLUSH_SECONDS, self.abort)

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()
        elif self._owner:
            self._owner.end(OVER_CAPACITY)

    def mark_closed(self) -> None:
        self._limits.remove(self)

    def check_deadline(self, now: float) -> None:
        if self._transport and self._transport.is_closing():
            self._check_flush(now, self._transport)
        elif now >= self._deadline:
            self.clear_deadline()
            self._on_deadline()

    def _check_flush(self, now: float, transport: asyncio.Transport) -> None:
        unsent = transport.get_write_buffer_size()
        if not self._stalled_at or unsent < self._unsent:
            self._unsent, self._stalled_at = unsent, now
        elif now - self._stalled_at > FLUSH_SECONDS:
            self._stalled_at = now
            transport.abort()

    def _time_out(self) -> None:
        self.close(TIMED_OUT)


class ConnectionLimits:
    """All connections of a process. The dictionaries are ordered by age: the first is the oldest."""

    def __init__(self, capacity: Capacity | None = None, *, needs_key: bool = False) -> None:
        self.capacity = capacity or Capacity()
        self.needs_key = needs_key
        self._open: dict[Connection, None] = {}
        self._unidentified: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}
        self._closing: dict[Connection, None] = {}
        self._check_timer: asyncio.TimerHandle | None = None
        self._check_due = 0.0
        """Time of the next check."""
        self._limited_log = RateLimitedLog(log)

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, port: str) -> Connection | None:
        """Admits a new connection, and closes another one if necessary. None if all are busy."""
        if len(self._unidentified) >= self.capacity.unidentified:
            self._close_oldest(self._unidentified, "without a key" if self.needs_key else "without a request")
        is_full = len(self._open) >= self.capacity.total
        if is_full and (len(self._open) >= self.capacity.total + MAX_CLOSING or not self.make_room()):
            metrics.CONNECTIONS_ENDED.labels(port, REFUSED).inc()
            self._limited_log.warning("refused a connection: all %d connections are busy", len(self._open))
            return None
        connection = Connection(self, port)
        self._open[connection] = self._unidentified[connection] = None
        self._set_metrics()
        self._schedule_check()
        return connection

    def make_room(self) -> bool:
        """Closes one connection that is closing, unidentified or idle; returns False if there is none."""
        if self._closing:
            closing = next(iter(self._closing))
            del self._closing[closing]
            closing.abort()
            return True
        for candidates in (self._unidentified, self._idle):
            if candidates:
                self._close_oldest(candidates, "without an active request")
                return True
        return False

    def update(self, connection: Connection, *, idle: bool = False) -> None:
        if connection not in self._open:
            return
        if connection.is_identified:
            self._unidentified.pop(connection, None)
        self._idle.pop(connection, None)
        if idle and connection.is_identified:
            self._idle[connection] = None
        self._set_metrics()

    def mark_closing(self, connection: Connection) -> None:
        """`make_room` aborts closing connections before it closes others."""
        self._unidentified.pop(connection, None)
        self._idle.pop(connection, None)
        if connection in self._open:
            self._closing[connection] = None

    def remove(self, connection: Connection) -> None:
        for connections in (self._open, self._unidentified, self._idle, self._closing):
            connections.pop(connection, None)
        self._set_metrics()

    def close(self) -> None:
        if self._check_timer:
            self._check_timer.cancel()
            self._check_timer = None

    def _close_oldest(self, candidates: dict[Connection, None], kind: str) -> None:
        oldest = next(iter(candidates))
        self._limited_log.warning(
            "connection limit reached: closing the oldest of %d connections %s", len(candidates), kind
        )
        oldest.close(OVER_CAPACITY)

    def _schedule_check(self) -> None:
        if self._check_timer is None:
            self._check_due = time.monotonic() + CHECK_SECONDS
            self._check_timer = asyncio.get_running_loop().call_later(CHECK_SECONDS, self._check)

    def _check(self) -> None:
        self._check_timer = None
        now = time.monotonic()
        delay = suspended_seconds(self._check_due, now)  # bytes that clients sent meanwhile have not been read yet
        for connection in list(self._open):
            try:
                connection.extend_deadline(delay)
                connection.check_deadline(now)
            except Exception:  # the other connections must be checked, too
                log.exception("checking a connection failed")
        if self._open:
            self._schedule_check()

    def _set_metrics(self) -> None:
        metrics.CONNECTIONS.labels("true").set(len(self._open) - len(self._unidentified))
        metrics.CONNECTIONS.labels("false").set(len(self._unidentified))


def _raised_limit() -> int | None:
    """Raises the soft limit of descriptors as far as possible; None if there is no limit or it is unknown."""
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415  missing on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < target:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            soft = target
    return None if soft == resource.RLIM_INFINITY else soft


def _open_descriptors() -> int:
    return psutil.Process().num_fds()
