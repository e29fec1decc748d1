"""Clients without a key open more sockets than the server has: clients with a key are still served."""

from __future__ import annotations

import contextlib
import socket
import ssl
import stat
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.visits import upgrade
from conure.service.keys import encode_keys, new_key
from tests.protocols.live_clients import TINY, converse, finals, pcm16, pieces, socket_of
from tests.protocols.servers import DEMO, PATIENCE, ROOT, SAID, Server, demo, started

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of descriptors")

LIMIT, CONNECTIONS = 128, 160
TLS = ROOT / "tests" / "data" / "tls"
HEAD = b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\n"
CROWDS = {
    "silent": ("web", b""),
    "half a head": ("web", b"GET / HTTP/1.1\r\nHost: loc"),
    "a body that stalls": ("web", HEAD + b"Content-Length: 9000\r\n\r\nx"),
    "a WebSocket and no key": ("web", upgrade("/v1/stream?events=true")),
    "no HTTP": ("web", b"\0\0\r\n\r\n"),
    "TLS that stalls": ("web", b"\x16\x03\x01\x02\x00"),
    "half a line": ("tcp", b'{"type": "hel'),
    "half an event": ("wyoming", b'{"type": "desc'),
    "a greeting of HTTP/2": ("grpc", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"),
}


def small_python(folder: Path) -> str:
    """A Python with a low limit of descriptors."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nulimit -n {LIMIT}\nexec {sys.executable} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


@pytest.fixture(scope="module")
def keyed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("narrow")
    key, secret = new_key("somebody", datetime.now(UTC))
    (folder / "keys.json").write_text(encode_keys([key]))
    with started("tiny", cache, "--keys", str(folder / "keys.json"), python=small_python(folder), key=secret) as server:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.errors


@pytest.fixture(scope="module")
def without_keys(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started("tiny", cache, python=small_python(tmp_path_factory.mktemp("narrow"))) as server:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.errors


def open_connections(server: Server, port: str, sent_bytes: bytes, stack: ExitStack) -> None:
    for _ in range(CONNECTIONS):
        with contextlib.suppress(ConnectionError):
            address = server.host, server.ports[port]
            connection = stack.enter_context(socket.create_connection(address, timeout=PATIENCE))
            connection.sendall(sent_bytes)


def check_that_it_serves(server: Server) -> None:
    for _ in range(3):
        status, body = server.post("/v1/transcribe", DEMO.read_bytes())
        assert (status, SAID.encode() in body) == (200, True)
    with socket_of(server) as client:
        assert finals(converse(client, [TINY, *pieces(pcm16(demo())), {"type": "close"}])) == SAID


@pytest.mark.parametrize("name", CROWDS)
def test_client_with_key_is_admitted(keyed: Server, name: str) -> None:
    port, sent_bytes = CROWDS[name]
    with ExitStack() as stack:
        open_connections(keyed, port, sent_bytes, stack)
        check_that_it_serves(keyed)


@pytest.mark.parametrize("name", [name for name in CROWDS if name != "a body that stalls"])
def test_client_with_a_request_is_admitted_without_keys(without_keys: Server, name: str) -> None:
    port, sent_bytes = CROWDS[name]
    with ExitStack() as stack:
        open_connections(without_keys, port, sent_bytes, stack)
        check_that_it_serves(without_keys)


def test_closed_connections_are_logged_and_counted(keyed: Server) -> None:
    with ExitStack() as stack:
        open_connections(keyed, "web", b"GET / HT", stack)
        assert keyed.metric('conure_connections_ended_total{port="web",why="crowded"}') > 0
        assert keyed.metric('conure_connections{identified="false"}') < LIMIT / 2
    log_lines = [line for line in keyed.lines if "connections without a key" in line]
    assert 1 <= len(log_lines) < CONNECTIONS / 4  # rate-limited


def test_stalled_tls_handshakes(cache: Path, tmp_path: Path) -> None:
    files = ("--tls-certificate", str(TLS / "localhost.pem"), "--tls-key", str(TLS / "localhost.key.pem"))
    trusting = ssl.create_default_context(cafile=TLS / "localhost.pem")
    with started("tiny", cache, *files, python=small_python(tmp_path)) as server, ExitStack() as stack:
        for sent_bytes in (b"", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n\r\n"):
            open_connections(server, "web", sent_bytes, stack)
            request = urllib.request.Request(f"https://localhost:{server.web}/v1/transcribe", data=DEMO.read_bytes())
            with urllib.request.urlopen(request, timeout=PATIENCE, context=trusting) as answer:
                assert SAID.encode() in answer.read()
        assert server.stop() == 0
        assert "Traceback" not in server.errors
