"""uvicorn's HTTP protocol with timeouts for heads and bodies, size limits for heads, and responses to invalid bytes.

uvicorn answers 400 to invalid HTTP but lets the application continue, whose own response then fails with a traceback.
Here the application sees a disconnect, an error is never written into a response that has started, and a rejected
client can read the reason: the connection is half-closed, and its input is read and dropped for a moment. A client that
half-closes the connection after its request still gets a response.

The head of a WebSocket handshake is parsed here and passed on, so that it has the same limits.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.version import version as websockets_version

from conure.errors import ConureError
from conure.log import RateLimitedLog
from conure.protocols.errors_by_path import error_response_for_path
from conure.protocols.http.acceptor import HTTP2_PREFACE, is_tls
from conure.protocols.http.connection_limits import BODY_BYTES, BODY_SECONDS, HEAD_SECONDS, OVER_CAPACITY, Connection
from conure.protocols.http.http_errors import (
    BODY_STALLED,
    HEAD_TIMEOUT,
    INCOMPLETE_REQUEST,
    INTERNAL_ERROR,
    NO_CAPACITY,
    TLS_ON_PLAIN_PORT,
    bad_handshake,
)
from conure.protocols.http.identification import CONNECTION
from conure.protocols.http.request_head import Head
from conure.protocols.http.uvicorn_websocket import DirectWebSocket

__all__ = ["LimitedHttpProtocol", "raw_error_response"]

log = logging.getLogger(__name__)
limited_log = RateLimitedLog(log)

GO_AWAY = bytes.fromhex("000000 04 00 00000000") + bytes.fromhex("000008 07 00 00000000 00000000 0000000d")
"""HTTP/2: no settings, then HTTP_1_1_REQUIRED."""
HEADER_DECODING = ("latin-1", "strict") if int(websockets_version.split(".")[0]) >= 17 else ("ascii", "surrogateescape")
"""How websockets decodes header bytes; uvicorn encodes them again the same way."""
BODY_HEADERS = "transfer-encoding", "content-length"

PROBES, PROBE_SECONDS = 2, 1.0
"""Interim responses (100) to a client that has half-closed, and the interval between them. If the client is gone, its
system resets the connection after the first. A fast response needs no probes."""


class LimitedHttpProtocol(H11Protocol):
    def __init__(self, *args: Any, connection: Connection, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_state = {**self.app_state, CONNECTION: connection}
        self.connection = connection
        self.conn: Head = Head(h11.SERVER)
        self._received_bytes = 0
        """Received since the last check of the body's rate."""
        self._phase = ""
        """Current phase: "head", "body", "response" or "idle"."""
        self._is_over = False
        """The last response was sent, and further input is dropped."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.connection.set_owner(self, transport)
        self._update_phase()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self.connection.mark_closed()

    def eof_received(self) -> bool:  # type: ignore[override]  # whether the connection stays open for the answer
        cycle = self.cycle
        is_active = cycle is not None and not cycle.response_complete
        if self._is_over:
            return False
        if is_active and not cycle.more_body:
            cycle.keep_alive = False
            if self.scheme == "https":  # TLS has no half-closed connections
                return False
            if cycle.scope["http_version"] == "1.1":
                self.loop.call_later(PROBE_SECONDS, self._probe, cycle, PROBES)
            return True
        if is_active or self.conn.trailing_data[0]:
            self._reject(INCOMPLETE_REQUEST)
        return False

    def _probe(self, cycle: RequestResponseCycle, left: int) -> None:
        """Detects a client that is gone, so that its request is cancelled."""
        if cycle.response_started or self.transport.is_closing():
            return
        self.transport.write(self.conn.send(h11.InformationalResponse(status_code=100, headers=[])))
        if left > 1:
            self.loop.call_later(PROBE_SECONDS, self._probe, cycle, left - 1)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        self._received_bytes += len(data)
        if self._phase != "body" and self._is_other_protocol(data):
            return
        try:
            super().data_received(data)
        except Exception:  # no input may leave a connection without a response
            log.exception("reading a request failed")
            self._reject(INTERNAL_ERROR)
        if not self._is_over and self.transport.get_protocol() is self:
            self._update_phase()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_over and self.transport.get_protocol() is self:
            self._update_phase()

    def end(self, reason: str) -> None:
        if self.conn.trailing_data[0] and self.conn.their_state is h11.IDLE and not self._is_over:
            self._reject(NO_CAPACITY if reason == OVER_CAPACITY else HEAD_TIMEOUT)
        if reason == OVER_CAPACITY or not self._is_over:
            self._is_over = True
            self.transport.close()

    def shutdown(self) -> None:
        if self._is_over:
            self.transport.close()
        else:
            super().shutdown()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        headers = Headers([(name.decode("ascii"), value.decode(*HEADER_DECODING)) for name, value in self.headers])
        request = Request(event.target.decode("ascii"), headers)
        if fault := _handshake_fault(event, request):
            self._reject(fault)
            return
        self.connections.discard(self)
        socket = DirectWebSocket(
            config=self.config, server_state=self.server_state, app_state=self.app_state, connection=self.connection
        )
        socket.connection_made(self.transport)
        self.transport.set_protocol(socket)
        socket.handle_connect(request)
        if rest := self.conn.trailing_data[0]:
            socket.data_received(rest)

    def send_400_response(self, msg: str) -> None:
        self._reject(self.conn.fault)

    def _is_other_protocol(self, data: bytes) -> bool:
        """Whether the first bytes belong to another protocol; if so, the client was sent an error."""
        if self.cycle is not None or self.conn.trailing_data[0]:
            return False
        if data.startswith(HTTP2_PREFACE):
            self._send_last(GO_AWAY)
            self.connection.ended("http2")
        elif is_tls(data):
            port = self.server[1] if self.server else ""
            limited_log.warning(
                "a client uses TLS on port %s, which is not encrypted: it should use http:// or ws://, or start the "
                "server with --tls-certificate and --tls-key",
                port,
            )
            self._reject(TLS_ON_PLAIN_PORT)
        else:
            return False
        return True

    def _update_phase(self) -> None:
        """Sets the deadline for the client's next bytes when the phase has changed."""
        phase = self._next_phase()
        if phase == self._phase:
            return
        self._phase = phase
        if phase == "idle":
            self.connection.clear_deadline()
            self.connection.mark_idle()
            return
        self.connection.mark_busy()
        if phase == "head":
            self.connection.set_deadline(HEAD_SECONDS)
        elif phase == "body":
            self._received_bytes = 0
            self.connection.set_deadline(BODY_SECONDS, self._check_body)
        else:
            self.connection.clear_deadline()

    def _next_phase(self) -> str:
        if self.conn.their_state is h11.SEND_BODY:
            return "body"
        if self.conn.their_state is not h11.IDLE:
            return "response"
        return "idle" if self.cycle is not None and not self.conn.trailing_data[0] else "head"

    def _check_body(self) -> None:
        """Rejects a stalled body, unless the server has paused reading or the client waits for 100-continue."""
        is_paused = self.flow.read_paused or (self.cycle is not None and self.cycle.waiting_for_100_continue)
        if is_paused or self._received_bytes >= BODY_BYTES:
            self._received_bytes = 0
            self.connection.set_deadline(BODY_SECONDS, self._check_body)
        else:
            self._reject(BODY_STALLED)

    def _reject(self, fault: ConureError) -> None:
        """Sends an error in the format of the requested protocol, if it is known, and closes the connection."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self.connection.mark_closing(fault.code)
        path = self.scope["path"] if self.scope and cycle is not None else ""
        response = error_response_for_path(path, fault)
        headers = [*response.raw_headers, (b"connection", b"close")]
        phrase = HTTPStatus(response.status_code).phrase.encode()
        try:
            data = self.conn.send(h11.Response(status_code=response.status_code, headers=headers, reason=phrase))
            if cycle is None or cycle.scope["method"] != "HEAD":
                data += self.conn.send(h11.Data(data=bytes(response.body)))
            data += self.conn.send(h11.EndOfMessage())
        except h11.LocalProtocolError:  # a response has started
            self._is_over = True
            self.transport.close()
            return
        self._send_last(data)

    def _send_last(self, response: bytes) -> None:
        """Sends the last bytes; further input is read and dropped, as an early close would reset the connection."""
        self._is_over = True
        self._unset_keepalive_if_required()
        self.transport.write(response)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
            self.connection.linger()
        else:
            self.transport.close()


def raw_error_response(fault: ConureError) -> bytes:
    """A native error response as bytes, sent without reading the request."""
    response = error_response_for_path("", fault)
    head = [f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}".encode()]
    head += [name + b": " + value for name, value in [*response.raw_headers, (b"connection", b"close")]]
    return b"\r\n".join([*head, b"", bytes(response.body)])


def _handshake_fault(event: h11.Request, request: Request) -> ConureError | None:
    """The error of an invalid handshake. Checked here, as the response has the format of the requested protocol."""
    if event.method != b"GET":
        return bad_handshake(f"a WebSocket cannot be opened with {event.method.decode()!r}")
    if event.http_version != b"1.1":
        return bad_handshake("a WebSocket cannot be opened over HTTP/1.0")
    if any(value != "0" for name in BODY_HEADERS for value in request.headers.get_all(name)):
        return bad_handshake("a WebSocket handshake must not have a body")
    handshake = ServerProtocol()
    is_valid = handshake.accept(request).status_code == HTTPStatus.SWITCHING_PROTOCOLS
    return None if is_valid else bad_handshake(str(handshake.handshake_exc))
