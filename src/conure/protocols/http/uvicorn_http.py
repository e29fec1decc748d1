"""uvicorn's HTTP protocol with limits of time for heads and bodies, of length for heads, and an answer to bad bytes.

uvicorn answers 400 to what is no HTTP and leaves the application at work, whose own answer then fails with a traceback
for every stranger who sends such bytes. Here the application is told that its client has gone, nothing is said into an
answer that has begun, and whoever is refused can read why: the connection is closed for writing, and for reading a
moment later. And a client that has sent all of its request may shut its side of the connection: it is answered.

The head of a WebSocket's handshake is parsed here and handed on, so that both kinds have the same limits.
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
rarely = RateLimitedLog(log)

GO_AWAY = bytes.fromhex("000000 04 00 00000000") + bytes.fromhex("000008 07 00 00000000 00000000 0000000d")
"""HTTP/2: no settings, then HTTP_1_1_REQUIRED."""
DECODED = ("latin-1", "strict") if int(websockets_version.split(".")[0]) >= 17 else ("ascii", "surrogateescape")
"""How websockets has bytes in its headers, and uvicorn takes them out again."""
BODY = "transfer-encoding", "content-length"

PROBES, PROBE_SECONDS = 2, 1.0
"""Interim answers to a client that has shut its side, and what is between them: one that is gone refuses the first, and
the second is not sent any more. An answer that comes soon needs none."""


class LimitedHttpProtocol(H11Protocol):
    def __init__(self, *args: Any, connection: Connection, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_state = {**self.app_state, CONNECTION: connection}
        self.connection = connection
        self.conn: Head = Head(h11.SERVER)
        self._came = 0
        """Bytes since it was last looked at how fast a body comes."""
        self._phase = ""
        """What is waited for: a head, a body, or nothing of the client."""
        self._is_over = False
        """It was told why, and what else it sends is dropped."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.connection.set_owner(self, transport)
        self._follow()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self.connection.mark_closed()

    def eof_received(self) -> bool:  # type: ignore[override]  # whether the connection stays open for the answer
        cycle = self.cycle
        is_at_work = cycle is not None and not cycle.response_complete
        if self._is_over:
            return False
        if is_at_work and not cycle.more_body:
            cycle.keep_alive = False
            if self.scheme == "https":  # TLS knows no connections that are half open
                return False
            if cycle.scope["http_version"] == "1.1":
                self.loop.call_later(PROBE_SECONDS, self._probe, cycle, PROBES)
            return True
        if is_at_work or self.conn.trailing_data[0]:
            self._refuse(INCOMPLETE_REQUEST)
        return False

    def _probe(self, cycle: RequestResponseCycle, left: int) -> None:
        """Whether anybody is there: one that has gone is not worked for."""
        if cycle.response_started or self.transport.is_closing():
            return
        self.transport.write(self.conn.send(h11.InformationalResponse(status_code=100, headers=[])))
        if left > 1:
            self.loop.call_later(PROBE_SECONDS, self._probe, cycle, left - 1)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        self._came += len(data)
        if self._phase != "body" and self._is_other_protocol(data):
            return
        try:
            super().data_received(data)
        except Exception:  # what a stranger sends may not leave a connection without an answer
            log.exception("a request could not be read")
            self._refuse(INTERNAL_ERROR)
        if not self._is_over and self.transport.get_protocol() is self:
            self._follow()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_over and self.transport.get_protocol() is self:
            self._follow()

    def end(self, why: str) -> None:
        """Where there is no room, or it came too late."""
        if self.conn.trailing_data[0] and self.conn.their_state is h11.IDLE and not self._is_over:
            self._refuse(NO_CAPACITY if why == OVER_CAPACITY else HEAD_TIMEOUT)
        if why == OVER_CAPACITY or not self._is_over:
            self._is_over = True
            self.transport.close()

    def shutdown(self) -> None:
        if self._is_over:
            self.transport.close()
        else:
            super().shutdown()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        headers = Headers([(name.decode("ascii"), value.decode(*DECODED)) for name, value in self.headers])
        request = Request(event.target.decode("ascii"), headers)
        if fault := _handshake_fault(event, request):
            self._refuse(fault)
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
        self._refuse(self.conn.fault)

    def _is_other_protocol(self, data: bytes) -> bool:
        """Whether the first bytes are of something else, which was answered then."""
        if self.cycle is not None or self.conn.trailing_data[0]:
            return False
        if data.startswith(HTTP2_PREFACE):
            self._say_last(GO_AWAY)
            self.connection.ended("http2")
        elif is_tls(data):
            port = self.server[1] if self.server else ""
            rarely.warning(
                "a client speaks TLS to port %s, which is not encrypted: it should use http:// or ws://, or the server "
                "be started with --tls-certificate and --tls-key",
                port,
            )
            self._refuse(TLS_ON_PLAIN_PORT)
        else:
            return False
        return True

    def _follow(self) -> None:
        """What is to come of the client now, and by when."""
        phase = self._next_phase()
        if phase == self._phase:
            return
        self._phase = phase
        if phase == "rest":
            self.connection.clear_deadline()
            self.connection.mark_idle()
            return
        self.connection.mark_busy()
        if phase == "head":
            self.connection.set_deadline(HEAD_SECONDS)
        elif phase == "body":
            self._came = 0
            self.connection.set_deadline(BODY_SECONDS, self._look_at_body)
        else:
            self.connection.clear_deadline()

    def _next_phase(self) -> str:
        if self.conn.their_state is h11.SEND_BODY:
            return "body"
        if self.conn.their_state is not h11.IDLE:
            return "answer"
        return "rest" if self.cycle is not None and not self.conn.trailing_data[0] else "head"

    def _look_at_body(self) -> None:
        """A body that is not read, or not asked for yet, is not the client's to send."""
        is_held = self.flow.read_paused or (self.cycle is not None and self.cycle.waiting_for_100_continue)
        if is_held or self._came >= BODY_BYTES:
            self._came = 0
            self.connection.set_deadline(BODY_SECONDS, self._look_at_body)
        else:
            self._refuse(BODY_STALLED)

    def _refuse(self, fault: ConureError) -> None:
        """In the form of the protocol that was asked for, as far as that is known."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self.connection.mark_closing(fault.code)
        path = self.scope["path"] if self.scope and cycle is not None else ""
        said = error_response_for_path(path, fault)
        headers = [*said.raw_headers, (b"connection", b"close")]
        phrase = HTTPStatus(said.status_code).phrase.encode()
        try:
            answer = self.conn.send(h11.Response(status_code=said.status_code, headers=headers, reason=phrase))
            if cycle is None or cycle.scope["method"] != "HEAD":
                answer += self.conn.send(h11.Data(data=bytes(said.body)))
            answer += self.conn.send(h11.EndOfMessage())
        except h11.LocalProtocolError:  # an answer has begun
            self._is_over = True
            self.transport.close()
            return
        self._say_last(answer)

    def _say_last(self, said: bytes) -> None:
        """The rest is read and dropped: a reset would overtake the reason."""
        self._is_over = True
        self._unset_keepalive_if_required()
        self.transport.write(said)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
            self.connection.linger()
        else:
            self.transport.close()


def raw_error_response(fault: ConureError) -> bytes:
    """What is said to who is not read, in our own form."""
    said = error_response_for_path("", fault)
    head = [f"HTTP/1.1 {said.status_code} {HTTPStatus(said.status_code).phrase}".encode()]
    head += [name + b": " + value for name, value in [*said.raw_headers, (b"connection", b"close")]]
    return b"\r\n".join([*head, b"", bytes(said.body)])


def _handshake_fault(event: h11.Request, request: Request) -> ConureError | None:
    """What keeps a head from being that of a handshake: looked at here, because it is told in the protocol's form."""
    if event.method != b"GET":
        return bad_handshake(f"a WebSocket is not opened with {event.method.decode()!r}")
    if event.http_version != b"1.1":
        return bad_handshake("a WebSocket is not opened over HTTP/1.0")
    if any(value != "0" for name in BODY for value in request.headers.get_all(name)):
        return bad_handshake("a handshake has no body")
    handshake = ServerProtocol()
    is_one = handshake.accept(request).status_code == HTTPStatus.SWITCHING_PROTOCOLS
    return None if is_one else bad_handshake(str(handshake.handshake_exc))
