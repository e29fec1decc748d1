"""Input of broken and hostile clients: an error with a code or a clean close, and the server is unchanged."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from bench.visits import come_and_go, reset, upgrade
from tests.protocols.live_clients import (
    TINY,
    Client,
    Message,
    converse,
    finals,
    lines,
    pcm16,
    pieces,
    socket_of,
    spoken,
)
from tests.protocols.servers import PATIENCE, QUIET, SAID, Server, demo, wait_for

OpenClient = Callable[[Server], AbstractContextManager[Client]]
DIGITS = pcm16(demo())
CLOSE = {"type": "close"}
NESTED = '{"type": "ping", "x": ' + "[" * 100_000 + "]" * 100_000 + "}"

INVALID_MESSAGES = [
    "{",
    "null",
    "[]",
    "17",
    '"ping"',
    "{}",
    '{"type": 17}',
    '{"type": "nonsense"}',
    '{"type": "audio", "data": "not base64!"}',
    '{"type": "audio", "data": 17}',
    '{"type": "audio", "samples": "loud"}',
    '{"type": "audio", "samples": [NaN]}',
    '{"type": "audio", "samples": [null]}',
    '{"type": "audio", "final": "yes"}',
    '{"type": "hello", "sample_rate": "fast"}',
    '{"type": "hello", "stream_id": 1e400}',
    '{"type": "hello", "stream_id": ' + "9" * 400 + "}",
    '{"type": "hello", "stream_id": "' + "x" * 1000 + '"}',
    '{"type": "finalize", "id": 36893488147419103232}',
    '{"type": "config", "endpointing": {"loudness": 1}}',
    '{"type": "config", "finals": {}}',
    '{"type": "resume"}',
    '{"type": "ping", "id": "now"}',
    NESTED,
]
NOT_MEANT: list[tuple[Message, str]] = [
    ({"type": "hello", "encoding": "morse"}, "bad_option"),
    ({"type": "hello", "sample_rate": 7999}, "bad_option"),
    ({"type": "hello", "sample_rate": -1}, "bad_option"),
    ({"type": "hello", "channels": 0}, "bad_option"),
    ({"type": "config", "model": "none"}, "unknown_model"),
    ({"type": "config", "model": "../../etc/passwd"}, "unknown_model"),
    ({"type": "config", "model": "tiny", "latency_ms": 81}, "bad_option"),
    ({"type": "config", "model": "tiny", "language": "tlh"}, "unsupported_language"),
    ({"type": "config", "endpointing": {"silence": -1}}, "bad_option"),
    ({"type": "config", "endpointing": {"speech": 2}}, "bad_option"),
    ({"type": "config", "finals": {"model": "none"}}, "unknown_model"),
    ({"type": "config", "finals": {"model": "small"}}, "bad_option"),
    ({"type": "config", "finals": {"model": "tiny", "budget_ms": 10**12}}, "bad_option"),
]


@pytest.fixture(params=[socket_of, lines], ids=["websocket", "tcp"])
def open_client(request: pytest.FixtureRequest) -> OpenClient:
    made: OpenClient = request.param
    return made


@pytest.fixture(autouse=True)
def unchanged_server(server: Server) -> Iterator[None]:
    """Checks that no test leaves streams, sockets or threads."""
    server.settled(0)
    before = server.handles()
    yield
    server.settled(0)
    wait_for(lambda: server.handles()[0] <= before[0])
    assert server.handles()[1] <= before[1] + 32  # the server keeps threads of container decoders
    assert "Traceback" not in server.errors


def test_invalid_message_is_answered_and_stream_continues(server: Server, open_client: OpenClient) -> None:
    with open_client(server) as client:
        for sent in INVALID_MESSAGES:
            client.say(sent)
            message = client.hear()
            assert message is not None, sent[:100]
            assert (message["type"], message["code"]) == ("error", "bad_message"), sent[:100]
            assert "Traceback" not in message["message"]
        assert finals(converse(client, [TINY, *pieces(DIGITS), CLOSE])) == SAID


def test_invalid_line_does_not_affect_others(server: Server) -> None:
    sent = "\n".join([json.dumps(TINY), *(json.dumps(spoken(piece)) for piece in pieces(DIGITS)[:20]), "{", ""])
    rest = [json.dumps(spoken(piece)) for piece in pieces(DIGITS)[20:]]
    with socket_of(server) as client:
        received = converse(client, [sent, "\n".join([*rest, '{"type": "close"}'])])
    assert [message["code"] for message in received if message["type"] == "error"] == ["bad_message"]
    assert finals(received) == SAID


@pytest.mark.parametrize(("message", "code"), NOT_MEANT, ids=lambda value: json.dumps(value)[:60])
def test_error_code_of_unsupported_requests(
    server: Server, open_client: OpenClient, message: Message, code: str
) -> None:
    received = []
    with open_client(server) as client:
        client.say(message)
        with suppress(OSError, ConnectionClosed):
            client.say(spoken(DIGITS[:640]))
        while (response := client.hear()) is not None:
            received.append(response)
    assert [(response["type"], response["code"]) for response in received] == [("error", code)]


def test_stream_continues_after_unsupported_request(server: Server, open_client: OpenClient) -> None:
    invalid: list[Message | bytes] = [
        {"type": "hello"},
        {"type": "resume", "token": "x"},
        {"type": "config", "model": "small"},
        {"type": "config", "endpointing": {"silence": 0}},
        spoken(b"", encoding="f32"),
        {"type": "audio", "samples": [0.1]},
    ]
    with open_client(server) as client:
        received = converse(client, [TINY, *invalid, *pieces(DIGITS), CLOSE])
    assert [message["code"] for message in received if message["type"] == "error"] == ["bad_option"] * len(invalid)
    assert finals(received) == SAID


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_non_finite_samples_fail_the_stream(server: Server, open_client: OpenClient, value: float) -> None:
    good = demo().astype("<f4").tobytes()
    bad = np.full(160, value, "<f4").tobytes()
    with open_client(server) as client:
        received = converse(client, [TINY | {"encoding": "f32"}, *pieces(good, 12_800), bad, good[:640], CLOSE])
    assert finals(received) == SAID
    assert (received[-1]["type"], received[-1]["code"]) == ("failed", "unsupported_audio")


def test_too_large_numbers_in_json(server: Server, open_client: OpenClient) -> None:
    with open_client(server) as client:
        received = converse(client, [{"type": "audio", "samples": [1e300]}, CLOSE])
    assert [(message["type"], message["code"]) for message in received] == [("error", "unsupported_audio")]


def test_invalid_container(server: Server, open_client: OpenClient) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 2**16, np.uint8).tobytes()
    with open_client(server) as client:
        received = converse(client, [TINY | {"encoding": "ogg"}, *pieces(noise, 4_096), CLOSE])
    assert (received[-1]["type"], received[-1]["code"]) == ("failed", "unsupported_audio")


def test_endless_line(server: Server) -> None:
    with lines(server) as client:
        with suppress(OSError):
            client.connection.sendall(b"x" * 2**23)
        message = client.hear()
        assert message is None or message["code"] == "bad_message"
        assert client.hear() is None


def test_invalid_utf8(server: Server) -> None:
    with lines(server) as client:
        client.connection.sendall(b"\xff\xfe\x00\n\x80\x81\n")
        message = client.hear()
        assert message is not None
        assert message["code"] == "bad_message"
        assert client.hear() is None


@pytest.mark.parametrize("path", ["/v1/stream", "/ws"])
def test_too_large_message(server: Server, path: str) -> None:
    with connect(server.url(path), max_size=None, compression=None, open_timeout=PATIENCE) as connection:
        with suppress(Exception):
            connection.send(bytes(2**26 + 1))
        with suppress(Exception):
            while True:
                connection.recv(PATIENCE)
        assert connection.close_code == 1009


def test_invalid_msgpack(server: Server) -> None:
    with connect(server.url("/v1/stream?format=msgpack"), compression=None, open_timeout=PATIENCE) as connection:
        for sent in (b"\xc1", b"", b"\x91" * 100_000, b"\x81\xa4type\xa4soup", "{"):
            connection.send(sent)
            assert b"invalid message" in bytes(connection.recv(PATIENCE))


@pytest.mark.parametrize(
    "query",
    [
        *("format=xml", "nonsense=1", "sample_rate=fast", "sample_rate=[1]", "events=maybe", "endpointing={}x"),
        *("events=NaN", "endpointing=" + "[" * 3000, "finals=17", "model=" + "x" * 1000, "latency_ms=1e99"),
    ],
)
def test_invalid_query(server: Server, query: str) -> None:
    with socket_of(server, f"/v1/stream?{query}") as client:
        (message,) = converse(client, [])
        assert message["type"] == "error"
        assert client.connection.close_code == 1008


@pytest.mark.parametrize(("query", "code"), [("model=none", "unknown_model"), ("encoding=morse", "bad_option")])
def test_unsupported_query(server: Server, query: str, code: str) -> None:
    with socket_of(server, f"/v1/stream?{query}") as client:
        assert [message["code"] for message in converse(client, [])] == [code]


def test_unknown_websocket_path(server: Server) -> None:
    with pytest.raises(InvalidStatus, match="404"), connect(server.url("/v2/none")):
        pass


def test_many_finalize_requests(server: Server, open_client: OpenClient) -> None:
    storm: list[Any] = [{"type": "finalize", "id": number} for number in range(500)]
    with open_client(server) as client:
        received = converse(client, [TINY, *pieces(DIGITS[: 2 * QUIET]), *storm, *pieces(DIGITS[2 * QUIET :]), CLOSE])
    assert [message["id"] for message in received if message["type"] == "marker"] == list(range(500))
    assert finals(received) == SAID


GARBAGE = [
    b"",
    b"\0" * 100,
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /v1/stream?x=\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/transcribe HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/transcribe?model=none HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
    b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


def test_garbage_on_every_port(server: Server) -> None:
    for port in (server.web, server.tcp, server.status):
        for sent in [*GARBAGE, upgrade("/v1/stream") + b"\xff" * 50, upgrade("/ws") + b"\x82\xff" + b"\xff" * 20]:
            with socket.create_connection((server.host, port), timeout=PATIENCE) as connection:
                connection.sendall(sent)
                reset(connection)


def test_two_thousand_short_connections(server: Server) -> None:
    come_and_go(server.host, server.web, server.tcp, server.status, 2_000)


class NonReadingClient:
    """Sends the same bytes as long as they are accepted, and reads nothing."""

    def __init__(self, connection: socket.socket, server: Server, port: int, first: bytes, flood: bytes) -> None:
        self._connection, self._flood, self._rest = connection, flood * 1_000, b""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect((server.host, port))
        connection.sendall(first)
        connection.setblocking(False)

    def send_more(self) -> None:
        with suppress(OSError):  # the buffer is full, or the connection closed
            while True:
                self._rest = self._rest or self._flood
                self._rest = self._rest[self._connection.send(self._rest) :]


def test_clients_that_do_not_read_are_disconnected(server: Server) -> None:
    ended = 'conure_streams_ended_total{end="client_too_slow"}'
    before = server.metric(ended)
    empty = b"\x81\x82" + bytes(4) + b"{}"  # masked with zeros
    with socket_of(server) as good, ExitStack() as stack:
        good.say(TINY)
        deaf = [
            NonReadingClient(stack.enter_context(socket.socket()), server, port, first, flood)
            for port, first, flood in (
                (server.tcp, json.dumps(TINY).encode() + b"\n", b"{}\n"),
                (server.web, upgrade("/v1/stream?model=tiny&events=true"), empty),
            )
        ]

        def are_given_up() -> bool:
            for client in deaf:
                client.send_more()
            return server.metric(ended) == before + len(deaf)

        wait_for(are_given_up)
        assert finals(converse(good, [*pieces(DIGITS), CLOSE])) == SAID
