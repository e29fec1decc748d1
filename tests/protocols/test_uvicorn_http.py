"""Requests followed by invalid bytes: status 400 if no response has started, and no traceback."""

from __future__ import annotations

import socket

import pytest

from tests.protocols.servers import DEMO, PATIENCE, Server

CHUNKED = b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfLaC"
SMALL = b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n"


def exchange(server: Server, *sent: bytes) -> bytes:
    """Sends the parts and returns the whole response."""
    with socket.create_connection((server.host, server.web), timeout=PATIENCE) as connection:
        for part in sent:
            connection.sendall(part)
        return connection.makefile("rb").read()


@pytest.mark.parametrize(
    "sent",
    [
        (CHUNKED + b"\xff\xff\xff\r\n",),
        (CHUNKED, b"\xff\xff\xff\r\n"),
        (CHUNKED.replace(b"POST", b"HEAD") + b"\xff\xff\xff\r\n",),
        (b"\xff\r\n\r\n",),
    ],
)
def test_invalid_http_gets_one_response(server: Server, sent: tuple[bytes, ...]) -> None:
    received = exchange(server, *sent)
    assert received.startswith(b"HTTP/1.1 400")
    assert received.count(b"HTTP/1.1") == 1
    assert "Traceback" not in server.errors


def test_garbage_after_a_valid_request(server: Server) -> None:
    received = exchange(server, SMALL + b"\xff\xff\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200")


def test_application_is_cancelled(server: Server) -> None:
    """Its response is not sent, and nothing is logged."""
    recording = DEMO.read_bytes()
    head = b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(recording)
    exchange(server, head + recording + b"\xff\xff\r\n\r\n")
    assert server.post("/v1/transcribe", recording)[0] == 200
    assert "Traceback" not in server.errors
