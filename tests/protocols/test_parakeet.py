"""Form uploads and the stream of finals: responses, rejections, and the path shared with the native protocol."""

from __future__ import annotations

import json
import signal
import socket
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.protocols.live_clients import pcm16, pieces
from tests.protocols.servers import DEMO, MOST_UPLOAD, PATIENCE, SAID, Server, demo, started, wait_for
from tests.protocols.test_wyoming import connect_client as connect_wyoming
from tests.protocols.test_wyoming import request

DIGITS = pcm16(demo())
SEGMENT = {"text", "start", "end", "speaker", "is_user", "person_id", "detected_language"}
Answer = tuple[int, Any, dict[str, str]]


@pytest.fixture(scope="module")
def limited_server(cache: Path) -> Iterator[Server]:
    """A server with one stream and without the native protocol."""
    with started("tiny", cache, "--max-streams", "1", "--disable", "native", "--drain-seconds", "600") as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.errors


def post(
    server: Server, path: str, fields: dict[str, str], file: bytes | None = None, filename: bytes = b"../a b.wav"
) -> Answer:
    """Returns status, JSON and headers."""
    boundary = uuid.uuid4().hex
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    if file is not None:
        head = (
            b'Content-Disposition: form-data; name="file"; filename="%s"\r\nContent-Type: audio/wav\r\n\r\n' % filename
        )
        parts.append(head + file)
    body = b"".join(f"--{boundary}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()
    request = urllib.request.Request(server.base + path, data=body)
    request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.status, json.loads(response.read()), dict(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read()), dict(error.headers)


def test_segments(server: Server) -> None:
    status, body, headers = post(server, "/v1/transcribe", {}, DEMO.read_bytes())
    assert status == 200
    assert body.keys() == {"text", "segments"}
    assert body["text"] == SAID
    assert " ".join(segment["text"] for segment in body["segments"]) == SAID
    for segment in body["segments"]:
        assert segment.keys() == {"text", "start", "end"}
        assert 0 <= segment["start"] < segment["end"] <= 7.2
    assert "conure-ignored" not in headers


@pytest.mark.parametrize(
    "filename", [b"caf\xe9.wav", "鵝\x1b[31m.wav".encode(), b"", b"x" * 2_000, b"\xed\xb3\xa9.wav"]
)
def test_file_may_have_any_name(server: Server, filename: bytes) -> None:
    status, body, _ = post(server, "/v2/transcribe", {}, DEMO.read_bytes(), filename)
    assert (status, body["text"]) == (200, SAID)


@pytest.mark.parametrize("path", ["/v1/transcribe", "/v2/transcribe"])
def test_problems_are_reported(server: Server, path: str) -> None:
    data = DEMO.read_bytes()
    status, _, headers = post(server, path, {}, data[: len(data) // 2])
    assert status == 200
    assert "cut off" in headers["conure-problems"]


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({}, None),
        ({"diarize": "false"}, None),
        ({"diarize": "True"}, "diarize"),
        ({"diarize": "true", "num_speakers": "2"}, "diarize, num_speakers"),
        ({"min_speakers": "2", "max_speakers": "2"}, "min_speakers, max_speakers"),
        ({"num_speakers": "", "other": "7"}, None),
    ],
)
def test_speakers_are_null(server: Server, fields: dict[str, str], ignored: str | None) -> None:
    status, body, headers = post(server, "/v2/transcribe", fields, DEMO.read_bytes())
    assert status == 200
    assert body.keys() == {"text", "segments", "detected_language"}
    assert body["text"] == SAID
    assert body["detected_language"] == "en"  # the only one that the model knows
    assert [segment["speaker"] for segment in body["segments"]] == [None] * len(body["segments"])
    assert headers.get("conure-ignored") == ignored


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"min_speakers": "3", "max_speakers": "2"}, "min_speakers (3) cannot exceed max_speakers (2)"),
        (
            {"num_speakers": "2", "min_speakers": "1"},
            "num_speakers cannot be combined with min_speakers or max_speakers",
        ),
        ({"num_speakers": "0"}, "num_speakers is '0': send an integer greater than 0"),
        ({"max_speakers": "-1"}, "max_speakers is '-1': send an integer greater than 0"),
        ({"min_speakers": "1.5"}, "min_speakers is '1.5': send an integer greater than 0"),
        ({"min_speakers": "9" * 5000}, f"min_speakers is '{'9' * 5000}': send an integer greater than 0"),
        ({"diarize": "maybe"}, "diarize is 'maybe': send true or false"),
    ],
)
def test_invalid_fields(server: Server, fields: dict[str, str], detail: str) -> None:
    assert post(server, "/v2/transcribe", fields, DEMO.read_bytes())[:2] == (422, {"detail": detail})


@pytest.mark.parametrize("path", ["/v1/transcribe", "/v2/transcribe"])
@pytest.mark.parametrize(
    ("fields", "file", "status", "part"),
    [
        ({}, None, 422, "no file"),
        ({"file": "words"}, None, 422, "no file"),
        ({}, b"", 415, "empty"),
        ({}, b"this is not audio" * 100, 415, "audio"),
        ({}, bytes(MOST_UPLOAD + 1), 413, "bytes"),
    ],
)
def test_invalid_recordings(
    server: Server, path: str, fields: dict[str, str], file: bytes | None, status: int, part: str
) -> None:
    response_status, body, _ = post(server, path, fields, file)
    assert response_status == status
    assert body.keys() == {"detail"}
    assert part in body["detail"]


def test_client_disconnect(server: Server) -> None:
    for sent in (0, 100):
        head = b"POST /v2/transcribe HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        with socket.create_connection((server.host, server.web), timeout=PATIENCE) as connection:
            connection.sendall(head + b"Content-Length: 1000\r\n\r\n" + b"--x" + b" " * sent)
    assert post(server, "/v1/transcribe", {}, DEMO.read_bytes())[0] == 200


def test_other_bodies_go_to_the_native_protocol(server: Server, limited_server: Server) -> None:
    assert json.loads(server.post("/v1/transcribe", DEMO.read_bytes())[1])["duration"] == pytest.approx(7.181)
    assert limited_server.post("/v1/transcribe", DEMO.read_bytes())[0] == 404
    assert post(limited_server, "/v1/transcribe", {}, DEMO.read_bytes())[:2] == (
        200,
        post(server, "/v1/transcribe", {}, DEMO.read_bytes())[1],
    )
    status, body = server.post("/v2/transcribe", b"x")
    assert status == 422
    assert "multipart/form-data" in json.loads(body)["detail"]


@contextmanager
def connect_client(server: Server, query: str = "") -> Iterator[ClientConnection]:
    with connect(server.url("/v3/stream" + query), compression=None, open_timeout=PATIENCE) as connection:
        assert json.loads(connection.recv(PATIENCE)) == {"type": "ready"}
        yield connection


def receive_rest(connection: ClientConnection) -> tuple[list[dict[str, Any]], int | None, str | None]:
    segments = []
    try:
        while True:
            segments.append(json.loads(connection.recv(PATIENCE)))
    except ConnectionClosed:
        return segments, connection.close_code, connection.close_reason


def rejection(server: Server, query: str = "") -> tuple[int | None, str | None]:
    with connect(server.url("/v3/stream" + query), compression=None, open_timeout=PATIENCE) as connection:
        segments, code, reason = receive_rest(connection)
    assert not segments
    return code, reason


@pytest.mark.parametrize(
    ("query", "min_count", "max_count"), [("", 1, 8), ("?hangover_s=0.2", 5, 8), ("?hangover_s=3", 1, 1)]
)
def test_one_message_per_utterance(limited_server: Server, query: str, min_count: int, max_count: int) -> None:
    with connect_client(limited_server, query) as connection:
        for piece in pieces(DIGITS):
            connection.send(piece)
        connection.send("finalize")
        segments, code, reason = receive_rest(connection)
    assert (code, reason) == (1000, "stream_complete")
    assert min_count <= len(segments) <= max_count
    assert " ".join(segment["text"] for segment in segments) == SAID
    times = [time for segment in segments for time in (segment["start"], segment["end"])]
    assert times == sorted(times)
    for segment in segments:
        assert segment.keys() == SEGMENT
        assert (segment["speaker"], segment["is_user"], segment["person_id"]) == (None, False, None)
        assert segment["detected_language"] == "en"
    limited_server.settled(0)


def test_other_sample_rate_with_packets_of_any_size(limited_server: Server) -> None:
    with connect_client(limited_server, "?sample_rate=48000&vad_threshold=0.4") as connection:
        for piece in pieces(pcm16(demo(48_000)), 9_999):
            connection.send(piece)
        connection.send("keep going")  # a text that is not known is left alone
        connection.send("finalize")
        connection.send(b"too late")
        segments, code, _ = receive_rest(connection)
    assert code == 1000
    assert " ".join(segment["text"] for segment in segments) == SAID
    limited_server.settled(0)


def test_no_speech(limited_server: Server) -> None:
    with connect_client(limited_server) as connection:
        connection.send(bytes(32_000))
        connection.send("finalize")
        assert receive_rest(connection) == ([], 1000, "stream_complete")
    limited_server.settled(0)


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("?sample_rate=fast", "sample_rate is 'fast'"),
        ("?sample_rate=16000.5", "sample_rate"),
        ("?sample_rate=inf", "sample_rate"),
        ("?sample_rate=4000", "4000"),
        ("?vad_threshold=2", "2.0"),
        ("?hangover_s=nan", "nan"),
        ("?hangover_s=-1", "-1"),
        (f"?hangover_s={'x' * 1000}", "hangover_s"),
        (f"?hangover_s={'%C3%A4' * 100}", "hangover_s"),
    ],
)
def test_invalid_queries(server: Server, query: str, part: str) -> None:
    code, reason = rejection(server, query)
    assert code == 1008
    assert reason is not None
    assert reason.startswith("bad_option: ")
    assert part in reason


def test_disconnect_ends_the_stream(server: Server) -> None:
    with connect_client(server) as connection:
        connection.send(DIGITS)
        assert server.health()["streams"] == 1
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.socket.shutdown(socket.SHUT_RDWR)
    server.settled(0)


def test_capacity_is_full(limited_server: Server) -> None:
    with connect_client(limited_server) as connection:
        assert rejection(limited_server) == (1013, "capacity_full")
        with connect_wyoming(limited_server) as client:
            client.send(request(options={}))
            error = client.receive_until("error")[-1][1]
            assert error["code"] == "busy"
            assert "(retry after 5 s)" in error["text"]
        connection.send("finalize")
        assert receive_rest(connection)[1:] == (1000, "stream_complete")


def test_server_shutdown(limited_server: Server) -> None:
    """Must be the last test: it ends the server."""
    with connect_client(limited_server) as connection:
        connection.send(DIGITS)
        limited_server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: limited_server.health()["status"] == "draining")
        assert rejection(limited_server) == (1013, "draining")
        status, body, headers = post(limited_server, "/v1/transcribe", {}, DEMO.read_bytes())
        assert (status, headers["retry-after"]) == (503, "5")
        assert "about to stop" in body["detail"]
        connection.send("finalize")
        segments, code, _ = receive_rest(connection)
    assert code == 1000
    assert " ".join(segment["text"] for segment in segments) == SAID
    assert limited_server.wait() == 0
