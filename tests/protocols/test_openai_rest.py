"""OpenAI's REST endpoints over a real server, as raw HTTP: all fields, notations, formats and rejections."""

from __future__ import annotations

import io
import json
import socket
import wave
import zlib
from typing import Any

import httpx2
import numpy as np
import pytest

from conure.audio.files import open_audio
from conure.cli.transcript_formats import render_transcript
from conure.text.segments import segments_from_words
from conure.types import Transcript, Word
from tests.audio.test_tracks import mixed
from tests.protocols.forms import TRANSCRIPTIONS, Field, send
from tests.protocols.servers import DEMO, MOST_UPLOAD, PATIENCE, SAID, Server, demo

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
PART = b"--x\r\nContent-Disposition: form-data; "
SEGMENT_FIELDS = {
    *("id", "seek", "start", "end", "text", "tokens"),
    *("temperature", "avg_logprob", "compression_ratio", "no_speech_prob"),
}


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def events(response: httpx2.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    blocks = response.text.removesuffix("\n\n").split("\n\n")
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def transcript(server: Server) -> Transcript:
    """The transcript of the demo, from the native protocol."""
    body = json.loads(server.post("/v1/transcribe", DEMO.read_bytes())[1])
    words = [Word(**word) for segment in body["segments"] for word in segment["words"]]
    return Transcript(body["text"], body["duration"], segments=tuple(segments_from_words(words)))


def error(response: httpx2.Response) -> dict[str, Any]:
    body: dict[str, Any] = response.json()["error"]
    assert body.keys() == {"message", "type", "param", "code"}
    assert body["message"]
    return body


def test_json_has_text_language_and_usage(server: Server) -> None:
    assert send(server, ("model", "tiny")).json() == {
        "text": SAID,
        "languages": [{"code": "en"}],
        "usage": {"type": "duration", "seconds": 7.181},
    }


@pytest.mark.parametrize(("format_", "file_format"), [("text", "txt"), ("srt", "srt"), ("vtt", "vtt")])
def test_texts_equal_those_of_the_command(server: Server, format_: str, file_format: Any) -> None:
    response = send(server, ("response_format", format_))
    assert response.headers["content-type"].startswith("text/")
    assert response.text == render_transcript(transcript(server), file_format)


def test_segments_have_all_ten_fields(server: Server) -> None:
    body = send(server, ("response_format", "verbose_json")).json()
    assert (body["task"], body["language"], body["language_code"]) == ("transcribe", "english", "en")
    assert body["duration"] == body["usage"]["seconds"] == 7.181
    assert "words" not in body
    assert body["text"] == "".join(segment["text"] for segment in body["segments"]) == SAID
    (segment,) = body["segments"]
    assert segment.keys() == SEGMENT_FIELDS
    assert (segment["id"], segment["temperature"], segment["no_speech_prob"]) == (0, 0.0, 0.0)
    assert segment["seek"] == round(segment["start"] * 100)
    assert 0 < segment["start"] < segment["end"] <= 7.181
    assert len(segment["tokens"]) >= len(SAID.split())
    assert -1 < segment["avg_logprob"] < 0
    assert segment["compression_ratio"] == len(SAID) / len(zlib.compress(SAID.encode()))


@pytest.mark.parametrize(
    ("granularities", "expected"),
    [(["word"], {"words"}), (["segment"], {"segments"}), (["word", "segment"], {"words", "segments"})],
)
def test_granularities(server: Server, granularities: list[str], expected: set[str]) -> None:
    body = send(
        server, ("response_format", "verbose_json"), *(("timestamp_granularities[]", name) for name in granularities)
    ).json()
    assert body.keys() & {"words", "segments"} == expected


def test_words_equal_those_of_the_transcript(server: Server) -> None:
    body = send(server, ("response_format", "verbose_json"), ("timestamp_granularities[]", "word")).json()
    expected_words = [(word.text, word.start, word.end, word.confidence) for word in transcript(server).words]
    assert [
        tuple(word[key] for key in ("word", "start", "end", "confidence")) for word in body["words"]
    ] == expected_words


@pytest.mark.parametrize(
    "fields",
    [
        [("include", "logprobs")],
        [("include[]", "logprobs")],
        [("include[0]", "logprobs")],
        [("include", '["logprobs"]')],
        [("include[]", '["logprobs"]')],
        [("include[]", "logprobs"), ("include[]", "logprobs")],
    ],
)
def test_logprobs_in_every_list_notation(server: Server, fields: list[Field]) -> None:
    body = send(server, *fields).json()["logprobs"]
    assert "".join(token["token"] for token in body) == SAID
    assert bytes(byte for token in body for byte in token["bytes"]) == SAID.encode()
    assert all(-20 < token["logprob"] < 0 for token in body)


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ([("chunking_strategy", "auto")], ""),
        ([("chunking_strategy", '{"type": "server_vad", "threshold": 0.4}')], "chunking_strategy"),
        (
            [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[silence_duration_ms]", "300")],
            "chunking_strategy",
        ),
        ([("keywords[]", "Kowalczyk"), ("keywords[]", "[draft")], "keywords"),
        ([("keywords", '["one", "two"]')], "keywords"),
        ([("prompt", "digits")], "prompt"),
        ([("prompt", ""), ("language", ""), ("temperature", "")], ""),
        ([("temperature", "0")], ""),
        ([("temperature", "0.4")], "temperature"),
        ([("language", "en")], ""),
        ([("language", "en-US"), ("languages[]", "en")], ""),
        ([("language", "auto")], ""),
        ([("language", "English")], ""),
        ([("language", " en ")], ""),
        ([("language", "eng")], ""),
        ([("languages[]", "en")], ""),
        ([("languages", '["en", "en-GB"]')], "languages"),
        ([("model", "whisper-1"), ("stream", "false")], ""),
        ([("vad_filter", "true"), ("hotwords[]", "x"), ("päth,x", "x")], "vad_filter, hotwords[], p%C3%A4th%2Cx"),
    ],
)
def test_ignored_options_are_reported(server: Server, fields: list[Field], ignored: str) -> None:
    response = send(server, *fields)
    assert response.json()["text"] == SAID
    assert response.headers.get("conure-ignored", "") == ignored


def test_ignored_header_is_bounded(server: Server) -> None:
    response = send(server, *((f"{number}{'x' * 500}", "1") for number in range(200)))
    assert response.json()["text"] == SAID
    assert len(response.headers["conure-ignored"]) < 4096


@pytest.mark.parametrize("name", ["speech", "speech.mp3", "../../etc/passwd", "http://127.0.0.1/x.wav", "a\\b", "😀"])
def test_file_name_does_not_matter(server: Server, name: str) -> None:
    assert send(server, name=name).json()["text"] == SAID


def test_deltas_add_up_to_the_text(server: Server) -> None:
    pause = np.zeros(32_000, np.float32)
    audio = wav(np.concatenate([demo(), pause, demo(), pause, demo()]))
    response = send(server, ("stream", "true"), ("include[]", "logprobs"), ("response_format", "json"), file=audio)
    *deltas, done = events(response)
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert len(deltas) > 1
    assert done["type"] == "transcript.text.done"
    assert done["text"] == "".join(event["delta"] for event in deltas) == " ".join([SAID] * 3)
    assert done["logprobs"] == [token for event in deltas for token in event["logprobs"]]
    assert all("".join(token["token"] for token in event["logprobs"]) == event["delta"] for event in deltas)
    usage = done["usage"]
    assert usage["type"] == "tokens"
    assert usage["input_tokens"] == usage["input_token_details"]["audio_tokens"] == np.ceil(len(audio) // 2 / 1280)
    assert usage["output_tokens"] == len(done["logprobs"])
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_stream_reports_ignored_fields_and_rejects_with_a_status(server: Server) -> None:
    response = send(server, ("stream", "true"), ("prompt", "digits"))
    assert response.headers["conure-ignored"] == "prompt"
    assert "logprobs" not in events(response)[-1]
    refused = send(server, ("stream", "true"), file=b"this is not audio" * 100)
    assert refused.status_code == 400
    assert error(refused)["code"] == "unsupported_audio"


@pytest.mark.parametrize("format_", FORMATS)
def test_silence_has_no_text(server: Server, format_: str) -> None:
    silence = wav(np.zeros(48_000, np.float32))
    response = send(server, ("response_format", format_), file=silence)
    assert response.status_code == 200
    if format_ in ("json", "verbose_json"):
        assert response.json()["text"] == ""
        assert response.json().get("segments", []) == []
    else:
        assert response.text == {"text": "\n", "srt": "", "vtt": "WEBVTT\n\n"}[format_]


def test_stream_of_silence_has_one_event(server: Server) -> None:
    (done,) = events(send(server, ("stream", "true"), file=wav(np.zeros(48_000, np.float32))))
    assert (done["type"], done["text"]) == ("transcript.text.done", "")


def test_track_is_selected(server: Server) -> None:
    with open_audio(DEMO) as reader:
        speech = np.concatenate(list(reader.blocks()), axis=1)
    film = mixed(np.zeros_like(speech), speech)
    body = send(server, file=film).json()
    assert body["text"] == SAID
    assert "1 (aac), which is silent" in body["problems"][0]
    assert send(server, ("track", "1"), file=film).json()["text"] == ""
    for wrong, code in (("3", "no_such_track"), ("0", None), ("two", None)):
        response = send(server, ("track", wrong), file=film)
        assert response.status_code == 400
        assert code is None or response.json()["error"]["code"] == code


@pytest.mark.parametrize("format_", ["json", "verbose_json", "text"])
def test_problems_of_a_recording_are_reported(server: Server, format_: str) -> None:
    data = DEMO.read_bytes()
    response = send(server, ("response_format", format_), file=data[: len(data) // 2])
    assert response.status_code == 200
    body = response.headers["conure-problems"] if format_ == "text" else " ".join(response.json()["problems"])
    assert "cut off" in body


@pytest.mark.parametrize(
    ("fields", "file", "status", "param", "code"),
    [
        ([("model", "tiny")], None, 400, "file", "bad_option"),
        ([("file", "/etc/passwd")], None, 400, "file", "bad_option"),
        ([("file", "https://example.org/speech.wav")], None, 400, "file", "bad_option"),
        ([], b"", 400, "file", "unsupported_audio"),
        ([], b"this is not audio, whoever asks" * 100, 400, "file", "unsupported_audio"),
        ([], b"#EXTM3U\nhttp://127.0.0.1/secret\n", 400, "file", "unsupported_audio"),
        ([], bytes(MOST_UPLOAD + 1), 413, "file", "audio_too_long"),
        ([("prompt", "x" * (2**25 + 1))], b"", 413, "file", "audio_too_long"),
        ([("model", "none")], b"x", 404, "model", "model_not_found"),
        ([("model", "../../etc/passwd")], b"x", 404, "model", "model_not_found"),
        ([("model", "small")], b"x", 400, None, "bad_option"),
        ([("model", "tiny"), ("model", "tiny")], b"x", 400, "model", "bad_option"),
        ([("model[x]", "tiny")], b"x", 400, "model", "bad_option"),
        ([("language", "de")], b"x", 400, "language", "unsupported_language"),
        ([("languages[]", "en"), ("languages[]", "de")], b"x", 400, "language", "unsupported_language"),
        ([("languages", '["\\ud800"]')], b"x", 400, "language", "unsupported_language"),
        ([("response_format", "xml")], b"x", 400, "response_format", "bad_option"),
        ([("response_format", "diarized_json")], b"x", 400, "response_format", "bad_option"),
        ([("stream", "perhaps")], b"x", 400, "stream", "bad_option"),
        ([("stream", "true"), ("response_format", "srt")], b"x", 400, "response_format", "bad_option"),
        ([("temperature", "hot")], b"x", 400, "temperature", "bad_option"),
        ([("temperature", "1.5")], b"x", 400, "temperature", "bad_option"),
        ([("temperature", "nan")], b"x", 400, "temperature", "bad_option"),
        ([("timestamp_granularities[]", "word")], b"x", 400, "timestamp_granularities", "bad_option"),
        (
            [("timestamp_granularities[]", "letter"), ("response_format", "verbose_json")],
            *(b"x", 400, "timestamp_granularities", "bad_option"),
        ),
        ([("include[]", "magic")], b"x", 400, "include", "bad_option"),
        ([("include[]", "logprobs"), ("response_format", "text")], b"x", 400, "include", "bad_option"),
        ([("chunking_strategy", "never")], b"x", 400, "chunking_strategy", "bad_option"),
        ([("chunking_strategy", '{"type": "client_vad"}')], b"x", 400, "chunking_strategy", "bad_option"),
        ([("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "2")], b"x", 400, None, None),
        ([("chunking_strategy", "{" * 100_000)], b"x", 400, "chunking_strategy", "bad_option"),
        ([("keywords", '[["nested"]]')], b"x", 400, "keywords", "bad_option"),
        ([("known_speaker_names[]", "Ann")], b"x", 400, "known_speaker_names", "bad_option"),
        ([("known_speaker_references[]", "data:x")], b"x", 400, "known_speaker_references", "bad_option"),
    ],
)
def test_rejections(
    server: Server, fields: list[Field], file: bytes | None, status: int, param: str | None, code: str | None
) -> None:
    response = send(server, *fields, file=file)
    body = error(response)
    assert (response.status_code, body["type"]) == (status, "invalid_request_error")
    assert param in (body["param"], None)
    assert code in (body["code"], None)


def test_unsupported_language_lists_the_supported_ones(server: Server) -> None:
    assert "it knows: en" in error(send(server, ("language", "tlh")))["message"]


def test_two_files_and_a_file_in_a_text_field(server: Server) -> None:
    for name in ("file", "prompt"):
        response = httpx2.post(
            server.base + TRANSCRIPTIONS, files=[("file", ("a", DEMO.read_bytes())), (name, ("b", b"x"))]
        )
        assert response.status_code == 400
        assert error(response)["param"] == name


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("", b""),
        ("application/json", b'{"file": "/etc/passwd", "model": "tiny"}'),
        ("audio/flac", DEMO.read_bytes()),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=x", b"nonsense"),
        (
            "multipart/form-data; boundary=x; charset=idna",
            PART + b'name="\xff"\r\n\r\n',
        ),
        (
            "multipart/form-data; boundary=x",
            PART + b'name="file"; filename="a"\r\n\r\n',
        ),
        ("application/x-www-form-urlencoded", b"model=tiny"),
    ],
)
def test_bodies_that_are_not_forms(server: Server, content_type: str, body: bytes) -> None:
    response = httpx2.post(server.base + TRANSCRIPTIONS, content=body, headers={"Content-Type": content_type})
    assert response.status_code == 400
    error(response)


@pytest.mark.parametrize("length", [0, 1, 20, 500, 5_000, -3, -60, -300])
def test_truncated_form_is_reported(server: Server, length: int) -> None:
    """The error names the truncation, not a missing file; the remaining fields are not transcribed either."""
    request = httpx2.Request(
        "POST",
        server.base + TRANSCRIPTIONS,
        files={"file": DEMO.read_bytes()},
        data={"model": "tiny", "language": "en"},
    )
    content = request.read()
    assert content.endswith(b"--\r\n")
    content_type = {"Content-Type": request.headers["content-type"]}
    response = httpx2.post(server.base + TRANSCRIPTIONS, content=content[:length], headers=content_type)
    assert response.status_code == 400
    assert "ends before its last boundary" in error(response)["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", TRANSCRIPTIONS, 405, "POST"),
        ("DELETE", "/v1/audio/translations", 405, "POST"),
        ("POST", "/v1/models", 405, "GET, HEAD"),
        ("DELETE", "/v1/models/tiny", 405, "GET, HEAD"),
        ("POST", "/v1/audio/speech", 404, None),
        ("GET", "/v1/audio/", 404, None),
        ("POST", TRANSCRIPTIONS + "/x", 404, None),
        ("GET", "/v1/models/none", 404, None),
        ("GET", "/v1/chat/completions", 404, None),
        ("GET", "/v1/models/%0d%0ax", 404, None),
    ],
)
def test_other_paths_and_methods(server: Server, method: str, path: str, status: int, allowed: str | None) -> None:
    response = httpx2.request(method, server.base + path)
    assert (response.status_code, response.headers.get("allow")) == (status, allowed)
    assert error(response)["type"] == "invalid_request_error"


def test_translations_are_rejected_with_a_reason(server: Server) -> None:
    response = httpx2.post(server.base + "/v1/audio/translations", files={"file": ("a", DEMO.read_bytes())})
    assert response.status_code == 400
    assert "not supported" in error(response)["message"]


def test_models(server: Server) -> None:
    body = httpx2.get(server.base + "/v1/models").json()
    assert body["object"] == "list"
    found = {model["id"]: model for model in body["data"]}
    assert {"tiny", "small", "whisper-1", "gpt-live-transcribe"} <= found.keys()
    assert all(model["object"] == "model" and model["created"] > 0 for model in body["data"])
    tiny, small = found["tiny"], found["small"]
    assert (tiny["recordings"], tiny["languages"]) == (True, ["en"])
    assert (small["recordings"], small["live"]) == (False, True)
    assert small["latencies_ms"]
    assert (tiny["owned_by"], small["owned_by"]) == ("conure", "local")
    assert (found["whisper-1"]["root"], found["gpt-live-transcribe"]["root"]) == ("tiny", "small")


@pytest.mark.parametrize(
    ("name", "root"), [("tiny", "tiny"), ("small", "small"), ("whisper-large-v3", "tiny"), ("nova-3", "tiny")]
)
def test_model_by_any_accepted_name(server: Server, name: str, root: str) -> None:
    body = httpx2.get(f"{server.base}/v1/models/{name}").json()
    assert (body["id"], body["root"]) == (name, root)


def test_openapi_document_has_the_form(server: Server) -> None:
    paths = httpx2.get(server.base + "/openapi.json").json()["paths"]
    content = paths[TRANSCRIPTIONS]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert content["required"] == ["file"]
    assert {"model", "language", "languages", "include", "chunking_strategy", "stream"} <= content["properties"].keys()
    assert "$ref" not in json.dumps(content)
    assert {"/v1/audio/translations", "/v1/models", "/v1/models/{model}"} <= paths.keys()
    assert not any("{path}" in path for path in paths)


@pytest.mark.parametrize("sent", [0, 100, 40_000, None])
@pytest.mark.parametrize("stream", ["false", "true"])
def test_client_disconnect(server: Server, sent: int | None, stream: str) -> None:
    request = httpx2.Request(
        "POST",
        server.base + TRANSCRIPTIONS,
        files=[("stream", (None, stream)), ("file", ("a", DEMO.read_bytes()))],
    )
    body = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection((server.host, server.web), timeout=PATIENCE) as connection:
        connection.sendall(f"POST {TRANSCRIPTIONS} HTTP/1.1\r\n{head}\r\n".encode() + body[:sent])
    assert send(server).json()["text"] == SAID
