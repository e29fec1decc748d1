"""The protocol of `/ws`: deltas, segments, and ends that come back in the form they were said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import msgspec
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.protocols.live_clients import pcm16, pieces
from tests.protocols.servers import PATIENCE, Server, demo

DIGITS = pcm16(demo())
TOLD = {"text", "timestamp", "audio_timestamp", "is_final"}
SEGMENT = {"segment_text", "segment_start_time", "segment_end_time"}
MARKER = {"type": "Marker", "id": -1}


@contextmanager
def connected(server: Server) -> Iterator[ClientConnection]:
    with connect(server.url("/ws"), compression=None, open_timeout=PATIENCE) as connection:
        ready = msgspec.json.decode(connection.recv(PATIENCE))
        assert ready.keys() == {"type", "id"}
        assert ready["type"] == "Ready"
        yield connection


def until_end(connection: ClientConnection, end: Any) -> list[dict[str, Any]]:
    """What is told before the end comes back."""
    heard = []
    while True:
        said = connection.recv(PATIENCE)
        if said == end:
            return heard
        told = msgspec.msgpack.decode(said) if isinstance(said, bytes) else msgspec.json.decode(said)
        if told == end:
            return heard
        heard.append(told)


def segments(heard: list[dict[str, Any]]) -> str:
    """The finals, each of which must be what its deltas add up to, but for the space before a later one."""
    deltas = ""
    said = []
    for told in heard:
        assert told.keys() == (TOLD | SEGMENT if told["is_final"] else TOLD)
        if told["is_final"]:
            assert told["segment_text"] == told["text"] == deltas.removeprefix(" ")
            assert told["segment_start_time"] <= told["segment_end_time"]
            said.append(told["text"])
            deltas = ""
        else:
            assert told["text"]
            deltas += told["text"]
    assert deltas == ""
    return " ".join(filter(None, said))


@pytest.mark.parametrize("end", ["END", "MARKER"])
def test_raw_audio_and_text_markers(server: Server, end: str) -> None:
    with connected(server) as connection:
        heard = []
        for part in (DIGITS[: len(DIGITS) // 4 * 2], DIGITS[len(DIGITS) // 4 * 2 :]):
            for piece in pieces(part):
                connection.send(piece)
            connection.send(end)
            heard.append(until_end(connection, end))
    assert all(len(segments(part)) > 10 for part in heard)
    deltas = "".join(told["text"] for told in chain(*heard) if not told["is_final"])
    assert deltas == " ".join(segments(part) for part in heard)


def test_msgpack_is_answered_in_msgpack(server: Server) -> None:
    with connected(server) as connection:
        for piece in pieces(DIGITS):
            connection.send(msgspec.msgpack.encode({"type": "Audio", "pcm_bytes": piece}))
        connection.send(msgspec.msgpack.encode({"type": "Marker"}))
        packed = segments(until_end(connection, MARKER))
    with connected(server) as connection:
        for piece in pieces(DIGITS):
            connection.send(piece)
        connection.send("END")
        assert segments(until_end(connection, "END")) == packed


@pytest.mark.parametrize("said", ["hello", "[]", msgspec.msgpack.encode({"type": "Audio", "pcm_bytes": 17})])
def test_invalid_messages_are_reported(server: Server, said: str | bytes) -> None:
    with connected(server) as connection:
        connection.send(said)
        told = connection.recv(PATIENCE)
        error = msgspec.msgpack.decode(told) if isinstance(told, bytes) else msgspec.json.decode(told)
        assert (error["type"], error["code"]) == ("Error", "bad_message")
        connection.send("END")
        assert connection.recv(PATIENCE) == "END"


def test_deeply_nested_msgpack_is_audio(server: Server) -> None:
    with connected(server) as connection:
        connection.send(b"\x82\xa4type\xa5Audio\xa9pcm_bytes" + b"\x91" * 10_000 + b"\x01")
        connection.send("END")
        until_end(connection, "END")


def test_disconnect_ends_the_stream(server: Server) -> None:
    before = server.health()["streams"]
    with connected(server) as connection:
        connection.send(DIGITS)
        assert server.health()["streams"] == before + 1
        connection.socket.shutdown(2)
    server.settled(before)
