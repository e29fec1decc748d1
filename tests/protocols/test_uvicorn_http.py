"""Requests that are broken off with bytes that are no HTTP: 400 where nothing was said yet, and no traceback."""

from __future__ import annotations

import socket

import pytest

from tests.protocols.servers import DEMO, PATIENCE, Server

CHUNKED = b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfLaC"
SMALL = b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n"


def told(server: Server, *said: bytes) -> bytes:
    """All that is heard, up to the end."""
    with socket.create_connection((server.host, server.web), timeout=PATIENCE) as connection:
        for part in said:
            connection.sendall(part)
        return connection.makefile("rb").read()


@pytest.mark.parametrize(
    "said",
    [
        (CHUNKED + b"\xff\xff\xff\r\n",),
        (CHUNKED, b"\xff\xff\xff\r\n"),
        (CHUNKED.replace(b"POST", b"HEAD") + b"\xff\xff\xff\r\n",),
        (b"\xff\r\n\r\n",),
    ],
)
def test_what_is_no_http_is_answered(server: Server, said: tuple[bytes, ...]) -> None:
    heard = told(server, *said)
    assert heard.startswith(b"HTTP/1.1 400")
    assert heard.count(b"HTTP/1.1") == 1
    assert "Traceback" not in server.errors


def test_what_follows_a_good_request(server: Server) -> None:
    heard = told(server, SMALL + b"\xff\xff\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 200")


def test_the_application_lets_go(server: Server) -> None:
    """Whatever it was about to answer, it is not said, and nothing of it is in the log."""
    recording = DEMO.read_bytes()
    head = b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(recording)
    told(server, head + recording + b"\xff\xff\r\n\r\n")
    assert server.post("/v1/transcribe", recording)[0] == 200
    assert "Traceback" not in server.errors
