"""Transcription of uploads, and their errors."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from conure.audio.files import open_audio
from tests.audio.test_tracks import mixed
from tests.protocols.servers import DEMO, MOST_UPLOAD, PATIENCE, SAID, Server


def test_recording(server: Server) -> None:
    code, body = server.post("/v1/transcribe?model=tiny&language=en", DEMO.read_bytes())
    assert code == 200
    transcript = json.loads(body)
    assert transcript["text"] == SAID
    assert transcript["duration"] == pytest.approx(7.181)
    assert transcript["problems"] == []


def test_more_recordings_than_decode_workers(server: Server) -> None:
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
def test_refused_recordings(server: Server, query: str, body: bytes, status: int, code: str) -> None:
    answered, response = server.post("/v1/transcribe" + query, body)
    assert answered == status
    error = json.loads(response)["error"]
    assert error["code"] == code
    assert error["message"]


def test_broken_recording_is_transcribed_up_to_the_error(server: Server) -> None:
    data = DEMO.read_bytes()
    code, body = server.post("/v1/transcribe", data[: len(data) // 2])
    assert code == 200
    transcript = json.loads(body)
    assert SAID.startswith(transcript["text"].rsplit(" ", 1)[0])
    assert transcript["problems"]


@pytest.mark.parametrize("sent", [0, 100, len(DEMO.read_bytes())])
def test_client_disconnects_during_upload(server: Server, sent: int) -> None:
    head = (
        f"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(DEMO.read_bytes())}\r\n\r\n".encode()
    )
    with socket.create_connection((server.host, server.web), timeout=PATIENCE) as connection:
        connection.sendall(head + DEMO.read_bytes()[:sent])
    assert server.post("/v1/transcribe", DEMO.read_bytes())[0] == 200


def test_get_is_not_allowed(server: Server) -> None:
    assert server.get("/v1/transcribe")[0] == 405


def test_progress_is_reported(server: Server) -> None:
    status, body = server.post("/v1/transcribe?model=tiny&stream=true", DEMO.read_bytes())
    *before, last = map(json.loads, body.splitlines())
    assert status == 200
    assert [line["type"] for line in before] == ["progress"] * len(before)
    assert before[-1]["seconds"] == pytest.approx(before[-1]["of"], abs=0.1)
    assert (last["type"], last["text"]) == ("transcript", SAID)


def test_early_error_has_an_http_status(server: Server) -> None:
    status, body = server.post("/v1/transcribe?stream=true", b"no audio at all")
    assert (status, json.loads(body)["error"]["code"]) == (415, "unsupported_audio")


def test_track_option(server: Server) -> None:
    with open_audio(DEMO) as reader:
        speech = np.concatenate(list(reader.blocks()), axis=1)
    film = mixed(np.zeros_like(speech), speech)
    status, body = server.post("/v1/transcribe", film)
    transcript = json.loads(body)
    assert (status, transcript["text"]) == (200, SAID)
    assert "1 (aac), which is silent" in transcript["problems"][0]
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
