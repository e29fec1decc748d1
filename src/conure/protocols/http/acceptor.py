"""Accepts connections on a port: admits each one, performs the TLS handshake, and passes it to a protocol.

    listening socket ──> connection limit ──> TLS handshake, with timeout ──> a protocol, with its `Connection`

Replaces `asyncio.Server`, because connections must count before the first byte of the protocol: a stalled TLS handshake
occupies a file descriptor, too. If descriptors run out, the acceptor pauses and retries; it neither spins nor stops.
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
limited_log = RateLimitedLog(log)

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
ACCEPT, HANDSHAKE = "accept", "handshake"
"""Names of tasks."""
PAUSE_SECONDS = 0.2
"""Pause before the next attempt to accept, after an error."""
TLS = (b"\x16\x03", 2)
"""First bytes of a TLS handshake: record type and major version."""
HTTP2_PREFACE = b"PRI * HTTP/2"
"""First bytes of HTTP/2 without an upgrade."""

ProtocolFactory = Callable[[Connection], asyncio.BaseProtocol]


class Port:
    """Name, limits and TLS settings of a port."""

    def __init__(
        self,
        name: str,
        connections: ConnectionLimits,
        refusal: bytes = b"",
        context: ssl.SSLContext | None = None,
        plain_refusal: bytes = b"",
    ) -> None:
        """`refusal`: sent to a connection over the limit. `context`: of a TLS port; `plain_refusal` is then sent to a
        client that does not use TLS."""
        self.name, self.connections = name, connections
        self.refusal, self.context, self.plain_refusal = refusal, context, plain_refusal


class Acceptor:
    """Accepts connections; used in place of an `asyncio.Server`."""

    def __init__(self, sockets: Sequence[socket.socket], port: Port, create_protocol: ProtocolFactory) -> None:
        """`sockets`: listening and non-blocking. Starts immediately."""
        self.sockets = tuple(sockets)
        self._port, self._create_protocol = port, create_protocol
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting = [start_restarting_task(partial(self._accept, listener), ACCEPT) for listener in self.sockets]

    async def __aenter__(self) -> Acceptor:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()

    @property
    def port(self) -> int:
        """The port number."""
        number: int = self.sockets[0].getsockname()[1]
        return number

    def close(self) -> None:
        """Stops accepting and cancels handshakes; established connections continue."""
        for task in (*self._accepting, *self._handshakes):
            task.cancel()
        for listener in self.sockets:
            listener.close()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._accepting, *self._handshakes, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = await self._loop.sock_accept(listener)
                self._admit(client)
                await asyncio.sleep(0)  # lets connections that were closed to make room end before the next accept
            except ConnectionAbortedError:
                pass  # the client has disconnected
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._port.connections.make_room()
                    limited_log.warning("cannot accept connections: %s", error.strerror)
                else:
                    limited_log.error("accepting a connection on port %s failed: %s", self._port.name, error)
                await asyncio.sleep(PAUSE_SECONDS)
            except Exception:
                log.exception("accepting a connection on port %s failed", self._port.name)
                await asyncio.sleep(PAUSE_SECONDS)

    def _admit(self, client: socket.socket) -> None:
        connection = self._port.connections.admit(self._port.name)
        if connection is None:
            with contextlib.suppress(OSError):
                client.send(b"" if self._port.context else self._port.refusal)
            client.close()
            return
        task = start_task(self._start_protocol(client, connection), HANDSHAKE)
        report_if_failed(task, HANDSHAKE)
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)
        connection.set_owner(_Handshake(task), None)

    async def _start_protocol(self, client: socket.socket, connection: Connection) -> None:
        is_started = False
        try:
            if self._port.context is None:
                await self._loop.connect_accepted_socket(lambda: self._create_protocol(connection), client)
            elif await self._begins_with_tls(client, connection):
                await self._loop.connect_accepted_socket(
                    lambda: self._create_protocol(connection),
                    client,
                    ssl=self._port.context,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS,
                    ssl_shutdown_timeout=FLUSH_SECONDS,
                )
            else:
                return
            is_started = True
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            metrics.CONNECTIONS_ENDED.labels(self._port.name, "handshake").inc()
        finally:
            if not is_started:
                connection.mark_closed()
                client.close()

    async def _begins_with_tls(self, client: socket.socket, connection: Connection) -> bool:
        """Peeks at the first bytes. A client without TLS gets `plain_refusal`, as its handshake would fail silently."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                head = await _peek(self._loop, client)
        except NotImplementedError:  # the event loop does not support add_reader
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
    """Owner of a connection during its TLS handshake."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def end(self, reason: str) -> None:
        self._task.cancel()


def is_tls(head: bytes) -> bool:
    """Whether the first bytes of a connection (at least one) begin a TLS handshake."""
    prefix, size = TLS
    return bool(head) and head[:size] == prefix[: len(head)]


async def _peek(loop: asyncio.AbstractEventLoop, client: socket.socket) -> bytes:
    """Reads the first bytes without consuming them; empty if the client has disconnected."""
    readable = loop.create_future()

    def set_readable() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(client, set_readable)
    try:
        await readable
    finally:
        loop.remove_reader(client)
    return client.recv(TLS[1], socket.MSG_PEEK)
