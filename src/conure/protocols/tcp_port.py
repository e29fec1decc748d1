"""TCP ports whose connections have a stream reader and writer: native protocol over TCP, Wyoming, status port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import cast

from conure.log import RateLimitedLog
from conure.protocols.http.acceptor import HTTP2_PREFACE, Acceptor, Port, is_tls
from conure.protocols.http.connection_limits import HEAD_SECONDS, TIMED_OUT, Connection, ConnectionLimits
from conure.service.shared_ports import open_listeners

__all__ = ["TcpPort", "serve_tcp_port"]

log = logging.getLogger(__name__)
rarely = RateLimitedLog(log)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Connection], Awaitable[None]]
FULL = "the server is at its connection limit", "retry later"
TOO_LATE = "no message within the time limit", "identify immediately after connecting"
"""Message and hint."""

RenderError = Callable[[str, str], bytes]
"""Renders a message and a hint as an error of the port's protocol."""


class TcpPort:
    """Name of a port, its line limit, and how it rejects connections."""

    def __init__(
        self, name: str, render_error: RenderError, limit: int = 2**16, begins: bytes = b"", hint: str = ""
    ) -> None:
        """`limit`: bytes of a line. `begins`: first byte of every valid connection. `hint`: describes the protocol."""
        self.name, self.render_error, self.limit, self.begins, self.hint = name, render_error, limit, begins, hint


async def serve_tcp_port(
    port: TcpPort, connections: ConnectionLimits, serve: Serve, host: str, number: int, *, shared: bool = False
) -> Acceptor:
    """Raises OSError if the port cannot be bound."""
    full = port.render_error(*FULL)
    accepting = Port(port.name, connections, full)
    sockets = open_listeners(host, number, shared=shared)
    return Acceptor(sockets, accepting, lambda connection: _StreamsProtocol(port, serve, connection))


class _StreamsProtocol(asyncio.StreamReaderProtocol):
    def __init__(self, port: TcpPort, serve: Serve, connection: Connection) -> None:
        reader = asyncio.StreamReader(port.limit)

        async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await serve(reader, writer, connection)

        super().__init__(reader, begin)
        self._port, self._connection = port, connection
        self._is_first_data = True
        self._is_over = False
        self._tcp_transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp_transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._connection.set_owner(self, self._tcp_transport)
        self._connection.set_deadline(HEAD_SECONDS, self._check_identified)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connection.mark_closed()

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._is_first_data:
            self._is_first_data = False
            if rejection := self._reject_other_protocol(data):
                message, hint = rejection
                self._connection.mark_closing("other_protocol")
                self._send_last(message, self._port.hint or hint)
                return
        super().data_received(data)

    def end(self, reason: str) -> None:
        """Sends the reason and closes the connection."""
        self._send_last(*(TOO_LATE if reason == TIMED_OUT else FULL))
        self._tcp_transport.close()

    def _check_identified(self) -> None:
        """Closes an unidentified connection that has sent data. The idle timeout of silent ones is the protocol's."""
        if not self._connection.is_identified and not self._is_first_data:
            self._connection.close(TIMED_OUT)

    def _reject_other_protocol(self, data: bytes) -> tuple[str, str] | None:
        """Error message and hint, if the first bytes belong to another protocol."""
        if is_tls(data):
            number = self._tcp_transport.get_extra_info("sockname")[1]
            rarely.warning(
                "a client uses TLS on port %s, which does not support it: it should connect without TLS", number
            )
            return "this port does not support TLS", "connect without TLS"
        if data.startswith(HTTP2_PREFACE):
            return "this port does not support HTTP", "connect without HTTP/2"
        if self._port.begins and not data.startswith(self._port.begins):
            return "unknown protocol", f"begin with {self._port.begins.decode()!r}"
        return None

    def _send_last(self, message: str, hint: str) -> None:
        self._is_over = True
        with contextlib.suppress(RuntimeError):  # the writing side is already closed
            self._tcp_transport.write(self._port.render_error(message, hint))
            self._tcp_transport.write_eof()
        self._connection.linger()
        super().eof_received()  # the stream reader gets no more data
