"""Uploads: what is transcribed, and what is refused by name."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from conure.audio.files import open_audio
from tests.audio.test_tracks import mixed
from tests.protocols.servers import DEMO, MOST_UPLOAD, PATIENCE, SAID, Server


def test_a_recording(server: Server) -> None:
    code, body = server.post("/v1/transcribe?model=tiny&language=en", DEMO.read_bytes())
    assert code == 200
    told = json.loads(body)
    assert told["text"] == SAID
    assert told["duration"] == pytest.approx(7.181)
    assert told["problems"] == []


def test_more_recordings_than_are_read_at_once(server: Server) -> None:
    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(lambda _: server.post("/v1/transcribe", DEMO.read_bytes()), range(24)))
    assert {(code, json.loads(body)["text"]) for code, body in answers} == {(200, SAID)}


@pytest.mark.parametrize(
    ("query", "body", "status", "code"),
    [
        ("", b"", 415, "unsupported_audio"),
        ("", b"this is not audio, whoever asks" * 100, 415, "unsupported_audio"),
        ("", b"#EXTM3U\nhttp://127.0.0.1/secret\n", 415, "unsupported_audio"),
        ("", bytes(MOST_UPLOAD + 1), 413, "audio_too_long"),
        ("?model=none", DEMO.read_bytes(), 404, "unknown_model"),
        ("?model=small", DEMO.read_bytes(), 400, "bad_option"),
        ("?model=../../etc/passwd", DEMO.read_bytes(), 404, "unknown_model"),
        ("?language=tlh", DEMO.read_bytes(), 400, "unsupported_language"),
        ("?stream=null", DEMO.read_bytes(), 400, "bad_option"),
    ],
)
def test_what_cannot_be_transcribed(server: Server, query: str, body: bytes, status: int, code: str) -> None:
    answered, told = server.post("/v1/transcribe" + query, body)
    assert answered == status
    error = json.loads(told)["error"]
    assert error["code"] == code
    assert error["message"]


def test_a_broken_recording_is_transcribed_up_to_there(server: Server) -> None:
    data = DEMO.read_bytes()
    code, body = server.post("/v1/transcribe", data[: len(data) // 2])
    assert code == 200
    told = json.loads(body)
    assert SAID.startswith(told["text"].rsplit(" ", 1)[0])
    assert told["problems"]


@pytest.mark.parametrize("sent", [0, 100, len(DEMO.read_bytes())])
def test_a_client_that_hangs_up(server: Server, sent: int) -> None:
    head = (
        f"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(DEMO.read_bytes())}\r\n\r\n".encode()
    )
    with socket.create_connection((server.host, server.web), timeout=PATIENCE) as connection:
        connection.sendall(head + DEMO.read_bytes()[:sent])
    assert server.post("/v1/transcribe", DEMO.read_bytes())[0] == 200


def test_there_is_nothing_to_read(server: Server) -> None:
    assert server.get("/v1/transcribe")[0] == 405


def test_how_far_it_is_is_told(server: Server) -> None:
    status, body = server.post("/v1/transcribe?model=tiny&stream=true", DEMO.read_bytes())
    *before, last = map(json.loads, body.splitlines())
    assert status == 200
    assert [line["type"] for line in before] == ["progress"] * len(before)
    assert before[-1]["seconds"] == pytest.approx(before[-1]["of"], abs=0.1)
    assert (last["type"], last["text"]) == ("transcript", SAID)


def test_what_is_wrong_from_the_start_is_told_by_http(server: Server) -> None:
    status, body = server.post("/v1/transcribe?stream=true", b"no audio at all")
    assert (status, json.loads(body)["error"]["code"]) == (415, "unsupported_audio")


def test_a_track_is_chosen(server: Server) -> None:
    with open_audio(DEMO) as reader:
        speech = np.concatenate(list(reader.blocks()), axis=1)
    film = mixed(np.zeros_like(speech), speech)
    status, body = server.post("/v1/transcribe", film)
    told = json.loads(body)
    assert (status, told["text"]) == (200, SAID)
    assert "1 (aac), which is silent" in told["problems"][0]
    assert json.loads(server.post("/v1/transcribe?track=1", film)[1])["text"] == ""
    assert (
        json.loads(server.post("/v1/listen?track=1", film)[1])["results"]["channels"][0]["alternatives"][0]["words"]
        == []
    )
    for path, code in (("/v1/transcribe?track=3", "no_such_track"), ("/v1/transcribe?track=0", "bad_option")):
        status, body = server.post(path, film)
        assert (status, json.loads(body)["error"]["code"]) == (400, code)
    assert "1 (aac); 2 (aac)" in server.post("/v1/listen?track=3", film)[1].decode()
    assert server.post("/v1/listen?track=0", film)[0] == 400
