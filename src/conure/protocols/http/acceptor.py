"""Accepts connections on a port: counts each from its first moment, encrypts it where that is wanted, hands it on.

    listening socket ──> is there room? ──> TLS, within its time ──> a protocol, which is given its `Connection`

A port of its own making because what comes before a protocol's first byte has to be counted, too: a handshake of TLS
that stalls takes a descriptor like any other. Where descriptors run out all the same, the port waits a moment and tries
again; it neither spins nor gives up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial

from conure import metrics
from conure.background import report_if_failed, start_restarting_task, start_task
from conure.log import RateLimitedLog
from conure.protocols.http.connection_limits import FLUSH_SECONDS, HANDSHAKE_SECONDS, Connection, ConnectionLimits

__all__ = ["HTTP2_PREFACE", "Acceptor", "Port", "is_tls"]

log = logging.getLogger(__name__)
rarely = RateLimitedLog(log)

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
ACCEPT, HANDSHAKE = "accept", "handshake"
"""Names of tasks."""
PAUSE_SECONDS = 0.2
"""After which a port looks again whether there are descriptors."""
TLS = (b"\x16\x03", 2)
"""How a handshake begins: a record of its kind, of any version."""
HTTP2_PREFACE = b"PRI * HTTP/2"
"""How a client begins that takes HTTP/2 for granted."""

Protocols = Callable[[Connection], asyncio.BaseProtocol]


class Port:
    """What all connections of a port have in common."""

    def __init__(
        self,
        name: str,
        connections: ConnectionLimits,
        refusal: bytes = b"",
        context: ssl.SSLContext | None = None,
        plain_refusal: bytes = b"",
    ) -> None:
        """`refusal`: said where there is no room. `context`: of an encrypted port, and `plain_refusal` said to who
        does not encrypt."""
        self.name, self.connections = name, connections
        self.refusal, self.context, self.plain_refusal = refusal, context, plain_refusal


class Acceptor:
    """Stands where a web server would have an `asyncio.Server`."""

    def __init__(self, sockets: Sequence[socket.socket], port: Port, protocols: Protocols) -> None:
        """`sockets`: listening, and not blocking. Begins at once."""
        self.sockets = tuple(sockets)
        self._port, self._protocols = port, protocols
        self._loop = asyncio.get_running_loop()
        self._begun: set[asyncio.Task[None]] = set()
        self._accepting = [start_restarting_task(partial(self._accept, listener), ACCEPT) for listener in self.sockets]

    async def __aenter__(self) -> Acceptor:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()

    @property
    def port(self) -> int:
        """Of the port."""
        found: int = self.sockets[0].getsockname()[1]
        return found

    def close(self) -> None:
        """Nothing new; what was accepted goes on, but for handshakes."""
        for task in (*self._accepting, *self._begun):
            task.cancel()
        for listener in self.sockets:
            listener.close()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._accepting, *self._begun, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = await self._loop.sock_accept(listener)
                self._take(client)
                await asyncio.sleep(0)  # so that those that are ended for others are gone before the next comes
            except ConnectionAbortedError:
                pass  # it has left again
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._port.connections.make_room()
                    rarely.warning("no connection can be accepted: %s", error.strerror)
                else:
                    rarely.error("a connection of port %s was not accepted: %s", self._port.name, error)
                await asyncio.sleep(PAUSE_SECONDS)
            except Exception:
                log.exception("a connection of port %s was not accepted", self._port.name)
                await asyncio.sleep(PAUSE_SECONDS)

    def _take(self, client: socket.socket) -> None:
        connection = self._port.connections.admit(self._port.name)
        if connection is None:
            with contextlib.suppress(OSError):
                client.send(b"" if self._port.context else self._port.refusal)
            client.close()
            return
        task = start_task(self._hand_on(client, connection), HANDSHAKE)
        report_if_failed(task, HANDSHAKE)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        connection.set_owner(_Handshake(task), None)

    async def _hand_on(self, client: socket.socket, connection: Connection) -> None:
        is_handed_on = False
        try:
            if self._port.context is None:
                await self._loop.connect_accepted_socket(lambda: self._protocols(connection), client)
            elif await self._is_encrypted(client, connection):
                await self._loop.connect_accepted_socket(
                    lambda: self._protocols(connection),
                    client,
                    ssl=self._port.context,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS,
                    ssl_shutdown_timeout=FLUSH_SECONDS,
                )
            else:
                return
            is_handed_on = True
        except (OSError, TimeoutError):  # of which errors of TLS are some
            metrics.CONNECTIONS_ENDED.labels(self._port.name, "handshake").inc()
        finally:
            if not is_handed_on:
                connection.mark_closed()
                client.close()

    async def _is_encrypted(self, client: socket.socket, connection: Connection) -> bool:
        """Whoever speaks something else is told so, for a handshake would only fail."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                head = await _peeked(self._loop, client)
        except NotImplementedError:  # an event loop that cannot look without taking
            return True
        if not head or is_tls(head):
            return bool(head)
        connection.mark_closing("not_encrypted")
        with contextlib.suppress(OSError):
            client.send(self._port.plain_refusal)
            client.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(FLUSH_SECONDS):
                while await self._loop.sock_recv(client, 2**16):
                    pass
        return False


class _Handshake:
    """Speaks while nothing else does."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def end(self, why: str) -> None:
        self._task.cancel()


def is_tls(head: bytes) -> bool:
    """Whether these first bytes, or the first one, begin a handshake of TLS."""
    begin, size = TLS
    return bool(head) and head[:size] == begin[: len(head)]


async def _peeked(loop: asyncio.AbstractEventLoop, client: socket.socket) -> bytes:
    """The first bytes, which stay there; none where it has left."""
    readable = loop.create_future()

    def tell() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(client, tell)
    try:
        await readable
    finally:
        loop.remove_reader(client)
    return client.recv(TLS[1], socket.MSG_PEEK)
