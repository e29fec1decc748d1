"""What broken and hostile clients send: an error by name or a clean close, and the server is as it was."""

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

Door = Callable[[Server], AbstractContextManager[Client]]
DIGITS = pcm16(demo())
CLOSE = {"type": "close"}
NESTED = '{"type": "ping", "x": ' + "[" * 100_000 + "]" * 100_000 + "}"

MALFORMED = [
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
def door(request: pytest.FixtureRequest) -> Door:
    made: Door = request.param
    return made


@pytest.fixture(autouse=True)
def as_it_was(server: Server) -> Iterator[None]:
    """Every test leaves the server without a stream, a socket or a thread more."""
    server.settled(0)
    before = server.handles()
    yield
    server.settled(0)
    wait_for(lambda: server.handles()[0] <= before[0])
    assert server.handles()[1] <= before[1] + 32  # decoders of containers; their threads stay for the next ones
    assert "Traceback" not in server.errors


def test_a_message_that_is_not_understood_is_named_and_no_more(server: Server, door: Door) -> None:
    with door(server) as client:
        for said in MALFORMED:
            client.say(said)
            told = client.hear()
            assert told is not None, said[:100]
            assert (told["type"], told["code"]) == ("error", "bad_message"), said[:100]
            assert "Traceback" not in told["message"]
        assert finals(converse(client, [TINY, *pieces(DIGITS), CLOSE])) == SAID


def test_one_bad_line_among_good_ones(server: Server) -> None:
    said = "\n".join([json.dumps(TINY), *(json.dumps(spoken(piece)) for piece in pieces(DIGITS)[:20]), "{", ""])
    rest = [json.dumps(spoken(piece)) for piece in pieces(DIGITS)[20:]]
    with socket_of(server) as client:
        heard = converse(client, [said, "\n".join([*rest, '{"type": "close"}'])])
    assert [told["code"] for told in heard if told["type"] == "error"] == ["bad_message"]
    assert finals(heard) == SAID


@pytest.mark.parametrize(("message", "code"), NOT_MEANT, ids=lambda value: json.dumps(value)[:60])
def test_what_cannot_be_met_is_named(server: Server, door: Door, message: Message, code: str) -> None:
    heard = []
    with door(server) as client:
        client.say(message)
        with suppress(OSError, ConnectionClosed):
            client.say(spoken(DIGITS[:640]))
        while (told := client.hear()) is not None:
            heard.append(told)
    assert [(told["type"], told["code"]) for told in heard] == [("error", code)]


def test_the_stream_goes_on_after_what_cannot_be_met(server: Server, door: Door) -> None:
    wrong: list[Message | bytes] = [
        {"type": "hello"},
        {"type": "resume", "token": "x"},
        {"type": "config", "model": "small"},
        {"type": "config", "endpointing": {"silence": 0}},
        spoken(b"", encoding="f32"),
        {"type": "audio", "samples": [0.1]},
    ]
    with door(server) as client:
        heard = converse(client, [TINY, *wrong, *pieces(DIGITS), CLOSE])
    assert [told["code"] for told in heard if told["type"] == "error"] == ["bad_option"] * len(wrong)
    assert finals(heard) == SAID


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_numbers_that_are_no_audio_end_the_stream_after_what_was(server: Server, door: Door, value: float) -> None:
    good = demo().astype("<f4").tobytes()
    bad = np.full(160, value, "<f4").tobytes()
    with door(server) as client:
        heard = converse(client, [TINY | {"encoding": "f32"}, *pieces(good, 12_800), bad, good[:640], CLOSE])
    assert finals(heard) == SAID
    assert (heard[-1]["type"], heard[-1]["code"]) == ("failed", "unsupported_audio")


def test_numbers_in_json_that_are_too_large(server: Server, door: Door) -> None:
    with door(server) as client:
        heard = converse(client, [{"type": "audio", "samples": [1e300]}, CLOSE])
    assert [(told["type"], told["code"]) for told in heard] == [("error", "unsupported_audio")]


def test_bytes_that_are_no_container(server: Server, door: Door) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 2**16, np.uint8).tobytes()
    with door(server) as client:
        heard = converse(client, [TINY | {"encoding": "ogg"}, *pieces(noise, 4_096), CLOSE])
    assert (heard[-1]["type"], heard[-1]["code"]) == ("failed", "unsupported_audio")


def test_a_line_without_end(server: Server) -> None:
    with lines(server) as client:
        with suppress(OSError):
            client.connection.sendall(b"x" * 2**23)
        told = client.hear()
        assert told is None or told["code"] == "bad_message"
        assert client.hear() is None


def test_bytes_that_are_no_text(server: Server) -> None:
    with lines(server) as client:
        client.connection.sendall(b"\xff\xfe\x00\n\x80\x81\n")
        told = client.hear()
        assert told is not None
        assert told["code"] == "bad_message"
        assert client.hear() is None


@pytest.mark.parametrize("path", ["/v1/stream", "/ws"])
def test_a_message_that_is_too_large(server: Server, path: str) -> None:
    with connect(server.url(path), max_size=None, compression=None, open_timeout=PATIENCE) as connection:
        with suppress(Exception):
            connection.send(bytes(2**26 + 1))
        with suppress(Exception):
            while True:
                connection.recv(PATIENCE)
        assert connection.close_code == 1009


def test_packed_garbage(server: Server) -> None:
    with connect(server.url("/v1/stream?format=msgpack"), compression=None, open_timeout=PATIENCE) as connection:
        for said in (b"\xc1", b"", b"\x91" * 100_000, b"\x81\xa4type\xa4soup", "{"):
            connection.send(said)
            assert b"invalid message" in bytes(connection.recv(PATIENCE))


@pytest.mark.parametrize(
    "query",
    [
        *("format=xml", "nonsense=1", "sample_rate=fast", "sample_rate=[1]", "events=maybe", "endpointing={}x"),
        *("events=NaN", "endpointing=" + "[" * 3000, "finals=17", "model=" + "x" * 1000, "latency_ms=1e99"),
    ],
)
def test_a_query_that_does_not_fit(server: Server, query: str) -> None:
    with socket_of(server, f"/v1/stream?{query}") as client:
        (told,) = converse(client, [])
        assert told["type"] == "error"
        assert client.connection.close_code == 1008


@pytest.mark.parametrize(("query", "code"), [("model=none", "unknown_model"), ("encoding=morse", "bad_option")])
def test_a_query_that_cannot_be_met(server: Server, query: str, code: str) -> None:
    with socket_of(server, f"/v1/stream?{query}") as client:
        assert [told["code"] for told in converse(client, [])] == [code]


def test_there_is_no_other_socket(server: Server) -> None:
    with pytest.raises(InvalidStatus, match="404"), connect(server.url("/v2/none")):
        pass


def test_a_storm_of_finalize(server: Server, door: Door) -> None:
    storm: list[Any] = [{"type": "finalize", "id": number} for number in range(500)]
    with door(server) as client:
        heard = converse(client, [TINY, *pieces(DIGITS[: 2 * QUIET]), *storm, *pieces(DIGITS[2 * QUIET :]), CLOSE])
    assert [told["id"] for told in heard if told["type"] == "marker"] == list(range(500))
    assert finals(heard) == SAID


RAW = [
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
        for said in [*RAW, upgrade("/v1/stream") + b"\xff" * 50, upgrade("/ws") + b"\x82\xff" + b"\xff" * 20]:
            with socket.create_connection((server.host, port), timeout=PATIENCE) as connection:
                connection.sendall(said)
                reset(connection)


def test_two_thousand_that_come_and_go(server: Server) -> None:
    come_and_go(server.host, server.web, server.tcp, server.status, 2_000)


class Deaf:
    """Says the same as long as it is taken, and reads nothing of what is answered."""

    def __init__(self, connection: socket.socket, server: Server, port: int, first: bytes, flood: bytes) -> None:
        self._connection, self._flood, self._rest = connection, flood * 1_000, b""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect((server.host, port))
        connection.sendall(first)
        connection.setblocking(False)

    def go_on(self) -> None:
        with suppress(OSError):  # nothing more is taken now, or ever
            while True:
                self._rest = self._rest or self._flood
                self._rest = self._rest[self._connection.send(self._rest) :]


def test_clients_that_do_not_read_are_given_up(server: Server) -> None:
    ended = 'conure_streams_ended_total{end="client_too_slow"}'
    before = server.metric(ended)
    empty = b"\x81\x82" + bytes(4) + b"{}"  # masked with zeros
    with socket_of(server) as good, ExitStack() as stack:
        good.say(TINY)
        deaf = [
            Deaf(stack.enter_context(socket.socket()), server, port, first, flood)
            for port, first, flood in (
                (server.tcp, json.dumps(TINY).encode() + b"\n", b"{}\n"),
                (server.web, upgrade("/v1/stream?model=tiny&events=true"), empty),
            )
        ]

        def are_given_up() -> bool:
            for client in deaf:
                client.go_on()
            return server.metric(ended) == before + len(deaf)

        wait_for(are_given_up)
        assert finals(converse(good, [*pieces(DIGITS), CLOSE])) == SAID
