"""Ports on which a reader and a writer are given to each connection: lines over TCP, Wyoming, the status port."""

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
Say = Callable[[str, str], bytes]
"""A message and a hint as the port's protocol has an error."""


class TcpPort:
    """What a port is called, and what it says to those whom nobody serves."""

    def __init__(self, name: str, say: Say, limit: int = 2**16, begins: bytes = b"", form: str = "") -> None:
        """`limit`: bytes of the longest line. `begins`: the first byte of all that speak the protocol. `form`: how to
        speak it."""
        self.name, self.render_error, self.limit, self.begins, self.form = name, say, limit, begins, form


async def serve_tcp_port(
    port: TcpPort, connections: ConnectionLimits, serve: Serve, host: str, number: int, *, shared: bool = False
) -> Acceptor:
    """Raises OSError where the port cannot be had."""
    full = port.render_error("the server has no room for more connections", "try again later")
    accepted = Port(port.name, connections, full)
    sockets = open_listeners(host, number, shared=shared)
    return Acceptor(sockets, accepted, lambda connection: _Streams(port, serve, connection))


class _Streams(asyncio.StreamReaderProtocol):
    def __init__(self, port: TcpPort, serve: Serve, connection: Connection) -> None:
        reader = asyncio.StreamReader(port.limit)

        async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await serve(reader, writer, connection)

        super().__init__(reader, begin)
        self._port, self._serving = port, connection
        self._is_first = True
        self._is_over = False
        self._stream: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._serving.set_owner(self, self._stream)
        self._serving.set_deadline(HEAD_SECONDS, self._look_whether_begun)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._serving.mark_closed()

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._is_first:
            self._is_first = False
            if found := self._other_protocol(data):
                message, hint = found
                self._serving.mark_closing("other_protocol")
                self._say_last(message, self._port.form or hint)
                return
        super().data_received(data)

    def end(self, why: str) -> None:
        """Where there is no room, or nothing came in time."""
        late = "nothing was said in time", "say who you are at once"
        self._say_last(
            *(late if why == TIMED_OUT else ("the server has no room for more connections", "try again later"))
        )
        self._stream.close()

    def _look_whether_begun(self) -> None:
        """Where no key is needed a client may be silent for longer, but not in the middle of its first line."""
        if not self._serving.is_identified and not self._is_first:
            self._serving.close(TIMED_OUT)

    def _other_protocol(self, data: bytes) -> tuple[str, str] | None:
        """What it is and what to do about it, where the first bytes are of something that is not spoken here."""
        if is_tls(data):
            number = self._stream.get_extra_info("sockname")[1]
            rarely.warning(
                "a client speaks TLS to port %s, which is never encrypted: it should connect without", number
            )
            return "this port does not speak TLS", "connect without TLS"
        if data.startswith(HTTP2_PREFACE):
            return "this port does not speak HTTP", "connect without HTTP/2"
        if self._port.begins and not data.startswith(self._port.begins):
            return "this is another protocol", f"begin with {self._port.begins.decode()!r}"
        return None

    def _say_last(self, message: str, hint: str) -> None:
        self._is_over = True
        with contextlib.suppress(RuntimeError):  # it has said its last word already
            self._stream.write(self._port.render_error(message, hint))
            self._stream.write_eof()
        self._serving.linger()
        super().eof_received()  # whoever reads here has heard all
