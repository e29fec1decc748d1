"""How many connections there may be, and how long each may take: one policy for every port that we listen on ourselves.

    accepted ──> unidentified ── a key, or without keys a whole request ──> identified ──> gone
                     └── too many of them, or too late: the oldest is ended

A stranger needs no more than a socket to take one of ours, so those that have shown no key share a part of the room,
and the newest has the better claim to it: whoever has a key shows it with its first bytes, and whoever sits in the way
has sat there longest. Where there are no keys, whoever has said something whole is let in. Connections that only wait
for a next request make room, too. What is left over is the reserve of those that have a key.

The time-outs that need to know what is said are in the protocols, but the seconds are here.
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
from conure.event_loop import held_up
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
"""For the head of a request, from its first byte on, and where keys are needed for whatever carries the key."""
HANDSHAKE_SECONDS = 10.0
"""For a handshake of TLS."""
BODY_SECONDS, BODY_BYTES = 30.0, 30
"""A body may take hours, but in each half minute at least so many bytes of it come."""
KEEP_ALIVE_SECONDS = 75
"""Between two requests; longer than clients keep a connection, so that none finds it closed under its request."""
FIRST_MESSAGE_SECONDS, IDLE_SECONDS = 300.0, 3600.0
"""A WebSocket over which nothing is said in either direction but pings: from its beginning, and later."""
FLUSH_SECONDS = 5.0
"""For a client to read what it was told before its connection was closed, as long as it reads none of it."""

LOOK_SECONDS = 0.5
MOST_DESCRIPTORS = 65_536
"""That we ask the system for."""
WITHOUT_LIMIT = 4_096
"""Connections where the system has no limit of descriptors."""
MOST_UNIDENTIFIED = 4_096
"""Unless told otherwise; each takes some 30 KB."""
TIMED_OUT, OVER_CAPACITY, REFUSED = "late", "crowded", "refused"
"""Why a connection ends: for its own sake, for that of others, or before it has begun."""
LEAST = 4
"""Connections of any kind: less is no server."""
CLOSING = 8
"""Beyond the total, for those that are ended for others: they are gone in the next round of the event loop."""


@dataclass(frozen=True)
class Capacity:
    """Connections that one process may have."""

    total: int = WITHOUT_LIMIT
    """Of the ports that are ours: web, TCP, Wyoming, status."""
    unidentified: int = WITHOUT_LIMIT // 2
    """Of these, those that have shown no key."""
    grpc: int = WITHOUT_LIMIT // 4
    """Beside them, those of gRPC whose calls are answered; calls of others are told that there is no room."""
    grpc_accepted: int = WITHOUT_LIMIT // 2
    """That gRPC, which accepts its connections itself, accepts at all: what is more it closes without a word."""

    @staticmethod
    def from_descriptor_limit(most: int | None = None, unidentified: int | None = None) -> Capacity:
        """What the limit of descriptors leaves beside what is open now and an eighth of all for files.

        `most`, `unidentified`: where that was asked for, if there is room.
        """
        limit = _raised_limit()
        if limit is None:
            free, accepted = WITHOUT_LIMIT, WITHOUT_LIMIT // 2
        else:
            free = limit - _open_descriptors() - max(16, limit // 8)
            accepted = max(LEAST, min(free // 4, WITHOUT_LIMIT))
            free -= accepted
        total = max(LEAST, min(free, most or free))
        strangers = unidentified or min(total // 2, MOST_UNIDENTIFIED)
        answered = accepted - max(1, accepted // 8)
        return Capacity(total, max(1, min(strangers, total - 1)), min(answered, most or answered), accepted)


class ConnectionOwner(Protocol):
    """What speaks over a connection."""

    def end(self, why: str) -> None:
        """Says in its own form that the connection ends, and closes it at once. `why`: LATE or CROWDED."""
        ...


class Connection:
    """One of ours. Its speaker tells when it begins, how far the client is, and when it is gone."""

    def __init__(self, all_: ConnectionLimits, port: str) -> None:
        self.port = port
        self.is_identified = False
        """It has shown a key; or has said something whole, where no key is needed."""
        self._all = all_
        self._speaker: ConnectionOwner | None = None
        self._transport: asyncio.Transport | None = None
        self._deadline = float("inf")
        self._late: Callable[[], None] = self._end_late
        self._is_ending = False
        self._unsent, self._stuck = 0, 0.0
        """Bytes that a connection that is closing has not sent, and since when that has not changed."""

    def set_owner(self, speaker: ConnectionOwner, transport: asyncio.Transport | None) -> None:
        """Another one than before, after an upgrade. Without a transport it is in a handshake."""
        self._speaker, self._transport = speaker, transport

    def mark_identified(self) -> None:
        """A key was shown."""
        if not self.is_identified:
            self.is_identified = True
            self._all.update(self)

    def mark_message_received(self) -> None:
        """The client has said something whole, which is enough where there are no keys."""
        if not self._all.needs_key:
            self.mark_identified()

    def mark_idle(self) -> None:
        """Nothing is going on: it may be ended where there is no room."""
        self._all.update(self, idle=True)

    def mark_busy(self) -> None:
        """It rests no more."""
        self._all.update(self)

    def set_deadline(self, seconds: float, late: Callable[[], None] | None = None) -> None:
        """Something within so many seconds; else `late` is called, or the connection is ended."""
        self._deadline = time.monotonic() + seconds
        self._late = late or self._end_late

    def clear_deadline(self) -> None:
        self._deadline = float("inf")

    def wait_longer(self, seconds: float) -> None:
        self._deadline += seconds
        if self._stuck:
            self._stuck += seconds

    def close(self, why: str) -> None:
        """Politely; what is not read of it is dropped after a while."""
        self.mark_closing(why)
        try:
            if self._speaker:
                self._speaker.end(why)
        except Exception:  # it must not keep the one from coming in for which it is ended
            log.exception("a connection of port %s did not end well", self.port)
            self.abort()

    def mark_closing(self, why: str) -> None:
        """Its speaker has ended it, or is about to."""
        self.clear_deadline()
        if not self._is_ending:
            self._is_ending = True
            self._all.mark_closing(self)
            metrics.CONNECTIONS_ENDED.labels(self.port, why).inc()

    def linger(self) -> None:
        """Its speaker has said its last word, and drops what still comes: a reset would overtake the word."""
        self.set_deadline(FLUSH_SECONDS, self.abort)

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()
        elif self._speaker:
            self._speaker.end(OVER_CAPACITY)

    def mark_closed(self) -> None:
        self._all.remove(self)

    def check_deadline(self, now: float) -> None:
        if self._transport and self._transport.is_closing():
            self._look_at_rest(now, self._transport)
        elif now >= self._deadline:
            self.clear_deadline()
            self._late()

    def _look_at_rest(self, now: float, transport: asyncio.Transport) -> None:
        unsent = transport.get_write_buffer_size()
        if not self._stuck or unsent < self._unsent:
            self._unsent, self._stuck = unsent, now
        elif now - self._stuck > FLUSH_SECONDS:
            self._stuck = now
            transport.abort()

    def _end_late(self) -> None:
        self.close(TIMED_OUT)


class ConnectionLimits:
    """All of a process. Dictionaries keep the order: the first has been there longest."""

    def __init__(self, room: Capacity | None = None, *, needs_key: bool = False) -> None:
        self.capacity = room or Capacity()
        self.needs_key = needs_key
        self._open: dict[Connection, None] = {}
        self._unidentified: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}
        self._ending: dict[Connection, None] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._due = 0.0
        """The clock at the next look."""
        self._rarely = RateLimitedLog(log)

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, port: str) -> Connection | None:
        """Room is made for it where there is none; None where all are at work."""
        if len(self._unidentified) >= self.capacity.unidentified:
            self._crowded(self._unidentified, "that have shown no key" if self.needs_key else "that have said nothing")
        is_full = len(self._open) >= self.capacity.total
        if is_full and (len(self._open) >= self.capacity.total + CLOSING or not self.make_room()):
            metrics.CONNECTIONS_ENDED.labels(port, REFUSED).inc()
            self._rarely.warning("there are %d connections, and room for no more", len(self._open))
            return None
        connection = Connection(self, port)
        self._open[connection] = self._unidentified[connection] = None
        self._count()
        self._keep_looking()
        return connection

    def make_room(self) -> bool:
        """Ends one that nobody would miss; whether there was one."""
        if self._ending:
            hurried = next(iter(self._ending))
            del self._ending[hurried]
            hurried.abort()
            return True
        for waiting in (self._unidentified, self._idle):
            if waiting:
                self._crowded(waiting, "that wait")
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
        self._count()

    def mark_closing(self, connection: Connection) -> None:
        """It is on its way out: nobody need be ended for another one as long as it can be hurried."""
        self._unidentified.pop(connection, None)
        self._idle.pop(connection, None)
        if connection in self._open:
            self._ending[connection] = None

    def remove(self, connection: Connection) -> None:
        for some in (self._open, self._unidentified, self._idle, self._ending):
            some.pop(connection, None)
        self._count()

    def close(self) -> None:
        if self._looking:
            self._looking.cancel()
            self._looking = None

    def _crowded(self, waiting: dict[Connection, None], kind: str) -> None:
        oldest = next(iter(waiting))
        self._rarely.warning(
            "there are %d connections %s, and no room for more of them: the oldest is ended", len(waiting), kind
        )
        oldest.close(OVER_CAPACITY)

    def _keep_looking(self) -> None:
        if self._looking is None:
            self._due = time.monotonic() + LOOK_SECONDS
            self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = None
        now = time.monotonic()
        was_held_up = held_up(self._due, now)  # and what clients have sent meanwhile is still to be read
        for connection in list(self._open):
            try:
                connection.wait_longer(was_held_up)
                connection.check_deadline(now)
            except Exception:  # one that fails keeps none from being looked at
                log.exception("a connection could not be ended")
        if self._open:
            self._keep_looking()

    def _count(self) -> None:
        metrics.CONNECTIONS.labels("true").set(len(self._open) - len(self._unidentified))
        metrics.CONNECTIONS.labels("false").set(len(self._unidentified))


def _raised_limit() -> int | None:
    """Of descriptors, as many as we may have; None where there is no limit, or none that can be found."""
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415  it is not there on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return None if soft == resource.RLIM_INFINITY else soft


def _open_descriptors() -> int:
    return psutil.Process().num_fds()
