"""The protocol of `/ws`: deltas, segments, and markers that are echoed in their own form."""

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
TEXT_FIELDS = {"text", "timestamp", "audio_timestamp", "is_final"}
SEGMENT_FIELDS = {"segment_text", "segment_start_time", "segment_end_time"}
MARKER = {"type": "Marker", "id": -1}


@contextmanager
def connect_client(server: Server) -> Iterator[ClientConnection]:
    with connect(server.url("/ws"), compression=None, open_timeout=PATIENCE) as connection:
        ready = msgspec.json.decode(connection.recv(PATIENCE))
        assert ready.keys() == {"type", "id"}
        assert ready["type"] == "Ready"
        yield connection


def receive_until_marker(connection: ClientConnection, marker: Any) -> list[dict[str, Any]]:
    """Receives the messages before the echoed marker."""
    messages = []
    while True:
        data = connection.recv(PATIENCE)
        if data == marker:
            return messages
        message = msgspec.msgpack.decode(data) if isinstance(data, bytes) else msgspec.json.decode(data)
        if message == marker:
            return messages
        messages.append(message)


def segments(messages: list[dict[str, Any]]) -> str:
    """The texts of finals; each must equal its deltas, apart from the leading space of later segments."""
    deltas = ""
    texts = []
    for message in messages:
        assert message.keys() == (TEXT_FIELDS | SEGMENT_FIELDS if message["is_final"] else TEXT_FIELDS)
        if message["is_final"]:
            assert message["segment_text"] == message["text"] == deltas.removeprefix(" ")
            assert message["segment_start_time"] <= message["segment_end_time"]
            texts.append(message["text"])
            deltas = ""
        else:
            assert message["text"]
            deltas += message["text"]
    assert deltas == ""
    return " ".join(filter(None, texts))


@pytest.mark.parametrize("marker", ["END", "MARKER"])
def test_raw_audio_and_text_markers(server: Server, marker: str) -> None:
    with connect_client(server) as connection:
        messages = []
        for part in (DIGITS[: len(DIGITS) // 4 * 2], DIGITS[len(DIGITS) // 4 * 2 :]):
            for piece in pieces(part):
                connection.send(piece)
            connection.send(marker)
            messages.append(receive_until_marker(connection, marker))
    assert all(len(segments(part)) > 10 for part in messages)
    deltas = "".join(message["text"] for message in chain(*messages) if not message["is_final"])
    assert deltas == " ".join(segments(part) for part in messages)


def test_msgpack_is_answered_in_msgpack(server: Server) -> None:
    with connect_client(server) as connection:
        for piece in pieces(DIGITS):
            connection.send(msgspec.msgpack.encode({"type": "Audio", "pcm_bytes": piece}))
        connection.send(msgspec.msgpack.encode({"type": "Marker"}))
        packed = segments(receive_until_marker(connection, MARKER))
    with connect_client(server) as connection:
        for piece in pieces(DIGITS):
            connection.send(piece)
        connection.send("END")
        assert segments(receive_until_marker(connection, "END")) == packed


@pytest.mark.parametrize("message", ["hello", "[]", msgspec.msgpack.encode({"type": "Audio", "pcm_bytes": 17})])
def test_invalid_messages_are_reported(server: Server, message: str | bytes) -> None:
    with connect_client(server) as connection:
        connection.send(message)
        answer = connection.recv(PATIENCE)
        error = msgspec.msgpack.decode(answer) if isinstance(answer, bytes) else msgspec.json.decode(answer)
        assert (error["type"], error["code"]) == ("Error", "bad_message")
        connection.send("END")
        assert connection.recv(PATIENCE) == "END"


def test_deeply_nested_msgpack_is_audio(server: Server) -> None:
    with connect_client(server) as connection:
        connection.send(b"\x82\xa4type\xa5Audio\xa9pcm_bytes" + b"\x91" * 10_000 + b"\x01")
        connection.send("END")
        receive_until_marker(connection, "END")


def test_disconnect_ends_the_stream(server: Server) -> None:
    before = server.health()["streams"]
    with connect_client(server) as connection:
        connection.send(DIGITS)
        assert server.health()["streams"] == before + 1
        connection.socket.shutdown(2)
    server.settled(before)
