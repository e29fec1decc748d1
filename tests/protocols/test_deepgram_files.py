"""Transcription of recordings in Deepgram's protocol, over a real server: responses and rejections."""

from __future__ import annotations

import hashlib
import io
import json
import queue
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid
import wave
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.protocols.servers import DEMO, MOST_UPLOAD, PATIENCE, SAID, TINY_MODEL, Server, demo, started

WORDS = SAID.split()


class Response:
    def __init__(self, code: int, headers: Any, body: bytes) -> None:
        self.code, self.headers = code, headers
        self.body: dict[str, Any] = json.loads(body)

    @property
    def alternative(self) -> dict[str, Any]:
        (channel,) = self.body["results"]["channels"]
        (alternative,) = channel["alternatives"]
        found: dict[str, Any] = alternative
        return found


def transcribe(server: Server, body: bytes | dict[str, str], query: str = "", content_type: str = "") -> Response:
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(f"{server.base}/v1/listen?{query}", data=data, method="POST")
    request.add_header("Content-Type", content_type or ("application/json" if isinstance(body, dict) else "audio/flac"))
    request.add_header("Authorization", "Token secret")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return Response(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Response(error.code, error.headers, error.read())


def pcm(rate: int) -> bytes:
    return (demo(rate) * 32767).astype("<i2").tobytes()


def stereo() -> bytes:
    """The demo on the left channel, and half a second later on the right."""
    left = np.frombuffer(pcm(16_000), "<i2")
    right = np.concatenate([np.zeros(8000, "<i2"), left])
    return wav(np.stack([np.pad(left, (0, 8000)), right], axis=1).tobytes(), channels=2)


def wav(data: bytes, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(data)
    return file.getvalue()


def test_recording(server: Server) -> None:
    response = transcribe(server, DEMO.read_bytes(), "model=nova-3&language=en-US")
    assert response.code == 200
    metadata = response.body["metadata"]
    assert response.headers["dg-request-id"] == metadata["request_id"]
    assert uuid.UUID(metadata["request_id"])
    assert metadata["sha256"] == hashlib.sha256(DEMO.read_bytes()).hexdigest()
    assert metadata["duration"] == pytest.approx(7.181)
    assert metadata["channels"] == 1
    (model,) = metadata["models"]
    assert metadata["model_info"][model]["name"] == "tiny"
    assert metadata["created"].endswith("Z")
    assert "warnings" not in metadata
    assert response.headers["Conure-Ignored"] is None
    assert response.alternative["transcript"] == SAID
    words = response.alternative["words"]
    assert [word["word"] for word in words] == WORDS
    assert all(word["start"] < word["end"] and 0 <= word["confidence"] <= 1 for word in words)
    assert 0 < response.alternative["confidence"] <= 1
    assert "punctuated_word" not in words[0]
    assert "paragraphs" not in response.alternative
    assert "utterances" not in response.body["results"]


def test_written_form_is_added_on_request(server: Server) -> None:
    response = transcribe(server, DEMO.read_bytes(), "smart_format=true")
    assert [word["punctuated_word"] for word in response.alternative["words"]] == WORDS
    paragraphs = response.alternative["paragraphs"]
    assert paragraphs["transcript"].split() == WORDS
    assert sum(paragraph["num_words"] for paragraph in paragraphs["paragraphs"]) == len(WORDS)


def test_utterances_are_separated_by_pauses(server: Server) -> None:
    response = transcribe(server, DEMO.read_bytes(), "utterances=true&utt_split=0.3")
    utterances = response.body["results"]["utterances"]
    assert len(utterances) > 1
    assert " ".join(item["transcript"] for item in utterances).split() == WORDS
    assert all(current["start"] - previous["end"] >= 0.3 for previous, current in pairwise(utterances))
    (whole,) = transcribe(server, DEMO.read_bytes(), "utterances=true&utt_split=60").body["results"]["utterances"]
    assert whole["transcript"] == SAID
    assert whole["channel"] == 0
    assert uuid.UUID(whole["id"])


def test_channels_are_transcribed_separately(server: Server) -> None:
    response = transcribe(server, stereo(), "multichannel=true&utterances=true")
    assert response.body["metadata"]["channels"] == 2
    alternatives = [channel["alternatives"][0] for channel in response.body["results"]["channels"]]
    assert [item["transcript"] for item in alternatives] == [SAID, SAID]
    apart = alternatives[1]["words"][0]["start"] - alternatives[0]["words"][0]["start"]
    assert apart == pytest.approx(0.5, abs=0.1)
    utterances = response.body["results"]["utterances"]
    assert {item["channel"] for item in utterances} == {0, 1}
    assert utterances == sorted(utterances, key=lambda item: item["start"])


@pytest.mark.parametrize(
    ("body", "query"),
    [
        (pcm(16_000), "encoding=linear16&sample_rate=16000"),
        (pcm(24_000), "encoding=linear16&sample_rate=24000&channels=1"),
        (demo(16_000).astype("<f4").tobytes(), "encoding=linear32&sample_rate=16000"),
        (np.repeat(np.frombuffer(pcm(16_000), "<i2"), 2).tobytes(), "encoding=linear16&sample_rate=16000&channels=2"),
        (DEMO.read_bytes(), "encoding=flac&sample_rate=16000"),
        (wav(pcm(16_000)), "encoding=linear16&sample_rate=8000"),
        (DEMO.read_bytes(), "encoding=mulaw&sample_rate=8000"),
    ],
)
def test_raw_and_container_encodings(server: Server, body: bytes, query: str) -> None:
    assert len(body) < MOST_UPLOAD
    assert transcribe(server, body, query).alternative["transcript"] == SAID


def test_search_and_replace(server: Server) -> None:
    response = transcribe(
        server, DEMO.read_bytes(), "search=Nine+zero&search=eleven&replace=seven%3Aheaven&replace=two%3A"
    )
    assert response.alternative["transcript"] == SAID.replace("seven", "heaven").removesuffix(" two")
    first, second = response.body["results"]["channels"][0]["search"]
    assert second == {"query": "eleven", "hits": []}
    (hit,) = first["hits"]
    nine, zero = response.alternative["words"][2:4]
    assert (hit["snippet"], hit["start"], hit["end"]) == ("nine zero", nine["start"], zero["end"])


def test_ignored_parameters_are_reported(server: Server) -> None:
    query = "diarize=true&keywords=a:2&keywords=b&redact=pci&profanity_filter=false&numerals=true&tag=x&extra=k:v&foo=1"
    response = transcribe(server, DEMO.read_bytes(), query)
    assert response.alternative["transcript"] == SAID
    assert response.headers["Conure-Ignored"] == "diarize, keywords, redact, numerals, foo"
    metadata = response.body["metadata"]
    assert [item["parameter"] for item in metadata["warnings"]] == ["diarize", "keywords", "redact", "numerals", "foo"]
    assert metadata["tags"] == ["x"]
    assert metadata["extra"] == {"k": "v"}


def test_damaged_recording_is_transcribed_up_to_the_damage(server: Server) -> None:
    data = DEMO.read_bytes()
    response = transcribe(server, data[: len(data) // 2])
    assert SAID.startswith(response.alternative["transcript"].rsplit(" ", 1)[0])
    assert response.body["metadata"]["warnings"][0]["parameter"] == "audio"


@pytest.mark.parametrize(
    ("query", "body", "status", "code", "phrase"),
    [
        ("", b"", 400, "DATA-0000", "empty"),
        ("", b"this is not audio, whoever asks" * 100, 400, "DATA-0000", "not audio"),
        ("", bytes(MOST_UPLOAD + 1), 413, "PAYLOAD_TOO_LARGE", str(MOST_UPLOAD)),
        ("model=none", DEMO.read_bytes(), 400, "Bad Request", "tiny"),
        ("language=tlh", DEMO.read_bytes(), 400, "Bad Request", "it knows: en"),
        ("language=multi", DEMO.read_bytes(), 400, "Bad Request", "it knows: en"),
        ("punctuate=perhaps", DEMO.read_bytes(), 400, "Bad Request", "perhaps"),
        ("utterances=true&utt_split=-1", DEMO.read_bytes(), 400, "Bad Request", "utt_split"),
        ("utterances=true&utt_split=nan", DEMO.read_bytes(), 400, "Bad Request", "nan"),
        ("replace=nothing", DEMO.read_bytes(), 400, "Bad Request", "nothing"),
        ("encoding=linear16", pcm(16_000), 400, "Bad Request", "sample_rate"),
        ("encoding=linear16&sample_rate=1", pcm(16_000), 400, "Bad Request", "sample rate 1"),
        ("encoding=linear16&sample_rate=16000.5", pcm(16_000), 400, "Bad Request", "whole"),
        ("encoding=linear16&sample_rate=16000&channels=99", pcm(16_000), 400, "Bad Request", "99"),
        ("encoding=morse&sample_rate=16000", pcm(16_000), 400, "Bad Request", "morse"),
        ("", {"text": "https://example.com"}, 400, "Bad Request", "url"),
        ("", {"url": "file:///etc/passwd"}, 400, "Bad Request", "https://"),
        ("", {"url": "http://127.0.0.1/a.wav"}, 400, "Bad Request", "public"),
        ("", {"url": "http://0x7f.1:8000/"}, 400, "Bad Request", "public"),
        ("", {"url": "http://[::ffff:169.254.169.254]/latest/meta-data"}, 400, "Bad Request", "public"),
        ("", {"url": "http://localhost:22/"}, 400, "Bad Request", "public"),
    ],
)
def test_rejected_recordings(
    server: Server, query: str, body: bytes | dict[str, str], status: int, code: str, phrase: str
) -> None:
    response = transcribe(server, body, query)
    assert (response.code, response.body["err_code"]) == (status, code)
    assert phrase in response.body["err_msg"]
    assert response.body["request_id"] == response.headers["dg-request-id"]
    assert response.headers["dg-error"]


def test_url_body_is_detected_by_its_first_byte(server: Server) -> None:
    response = transcribe(server, b' {"url": "ftp://somewhere"}', content_type="application/x-www-form-urlencoded")
    assert "ftp://somewhere" in response.body["err_msg"]
    samples = b"{" + pcm(16_000)[1:]
    assert transcribe(server, samples, "encoding=linear16&sample_rate=16000").alternative["transcript"] == SAID


def test_names_are_escaped_in_headers(server: Server) -> None:
    response = transcribe(server, DEMO.read_bytes(), urllib.parse.urlencode({"a\r\nb: c": "1", "ü": "1", "fine": "1"}))
    assert response.headers["Conure-Ignored"] == "a%0D%0Ab:%20c, %C3%BC, fine"
    assert [item["parameter"] for item in response.body["metadata"]["warnings"]] == ["a\r\nb: c", "ü", "fine"]


class FileSite(BaseHTTPRequestHandler):
    """Serves the demo and receives callbacks."""

    callbacks: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

    def do_GET(self) -> None:
        found = {"/demo.flac": DEMO.read_bytes(), "/large": bytes(MOST_UPLOAD + 1)}.get(self.path)
        self.send_response(302 if self.path == "/moved" else 200 if found else 404, None)
        self.send_header("Location", "/demo.flac")
        self.end_headers()
        self.wfile.write(found or b"")

    def do_PUT(self) -> None:
        self.callbacks.put((self.command, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        self.send_response(200)
        self.end_headers()

    do_POST = do_PUT  # noqa: N815  a name of the library

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), FileSite) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@pytest.fixture(scope="module")
def server_with_local_urls(cache: Path) -> Iterator[Server]:
    """A server that may fetch from local addresses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONURE_ALLOW_PRIVATE_URLS", "true")
        with started(f"{TINY_MODEL}", cache) as running:
            yield running
            assert running.stop() == 0
            assert "Traceback" not in running.errors


@pytest.mark.parametrize("path", ["/demo.flac", "/moved"])
def test_recording_is_fetched_from_url(server_with_local_urls: Server, site: str, path: str) -> None:
    response = transcribe(server_with_local_urls, {"url": site + path}, "utterances=true")
    assert response.alternative["transcript"] == SAID
    assert response.body["metadata"]["sha256"] == hashlib.sha256(DEMO.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("path", "status", "code", "phrase"),
    [
        ("/none", 400, "REMOTE_CONTENT_ERROR", "404"),
        ("/large", 413, "PAYLOAD_TOO_LARGE", str(MOST_UPLOAD)),
    ],
)
def test_recording_that_cannot_be_fetched(
    server_with_local_urls: Server, site: str, path: str, status: int, code: str, phrase: str
) -> None:
    response = transcribe(server_with_local_urls, {"url": site + path})
    assert (response.code, response.body["err_code"]) == (status, code)
    assert phrase in response.body["err_msg"]


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_result_is_sent_to_callback(server_with_local_urls: Server, site: str, method: str) -> None:
    query = urllib.parse.urlencode({"callback": f"{site}/later", "callback_method": method, "model": "nova-3"})
    response = transcribe(server_with_local_urls, DEMO.read_bytes(), query)
    assert response.code == 200
    assert response.body == {"request_id": response.headers["dg-request-id"]}
    used_method, body = FileSite.callbacks.get(timeout=PATIENCE)
    assert used_method == method
    assert body["metadata"]["request_id"] == response.body["request_id"]
    assert Response(200, {}, json.dumps(body).encode()).alternative["transcript"] == SAID


def test_failure_is_sent_to_callback(server_with_local_urls: Server, site: str) -> None:
    response = transcribe(
        server_with_local_urls, {"url": f"{site}/none"}, urllib.parse.urlencode({"callback": f"{site}/later"})
    )
    assert response.code == 200
    _, body = FileSite.callbacks.get(timeout=PATIENCE)
    assert body["err_code"] == "REMOTE_CONTENT_ERROR"
    assert body["request_id"] == response.body["request_id"]


@pytest.mark.parametrize(
    ("callback", "phrase"),
    [
        ("callback=http%3A%2F%2F127.0.0.1%2F", "public"),
        ("callback=nowhere", "https://"),
        ("callback=https%3A%2F%2Fexample.com&callback_method=GET", "GET"),
    ],
)
def test_rejected_callbacks(server: Server, callback: str, phrase: str) -> None:
    response = transcribe(server, DEMO.read_bytes(), callback)
    assert response.code == 400
    assert phrase in response.body["err_msg"]
