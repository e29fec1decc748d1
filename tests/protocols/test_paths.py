"""Paths, methods and content types: normalization, and errors in the format of each protocol."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from conure.protocols.http.origin_guard import EXPOSED
from tests.protocols.live_clients import TINY, socket_of
from tests.protocols.servers import DEMO, PATIENCE, ROOT, SAID, Server

OPENAI, DEEPGRAM, PARAKEET, NATIVE = {"type"}, {"err_code", "err_msg"}, {"detail"}, {"hint"}
FORMS = [
    ("/v1/nothing", OPENAI),
    ("/v1/audio/speech", OPENAI),
    ("/v1/realtime/nothing", OPENAI),
    ("/v1/listen/nothing", DEEPGRAM),
    ("/v2/listen/nothing", DEEPGRAM),
    ("//v1/projects/", DEEPGRAM),
    ("/V1/Listen/nothing", DEEPGRAM),
    ("/v2/nothing", PARAKEET),
    ("/v3/stream/nothing", PARAKEET),
    ("/v1/stream/nothing", NATIVE),
    ("/v1/transcribe/nothing", NATIVE),
    ("/nothing", NATIVE),
    ("/ws/nothing", NATIVE),
    ("/%1b%0d%0a", NATIVE),
]


def is_in_form(body: bytes, form: set[str]) -> bool:
    message = json.loads(body)
    return form <= message.get("error", message).keys() and ("error" in message) == (form in (OPENAI, NATIVE))


@pytest.mark.parametrize(("path", "form"), FORMS)
def test_unknown_path(server: Server, path: str, form: set[str]) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        answer = httpx2.request(method, server.base + path)
        assert answer.status_code == 404
        assert is_in_form(answer.content, form)
    with pytest.raises(InvalidStatus) as refused, connect(server.url(path), open_timeout=PATIENCE):
        pass
    assert refused.value.response.status_code == 404
    assert is_in_form(refused.value.response.body, form)


@pytest.mark.parametrize(
    ("method", "path", "allowed", "form"),
    [
        ("GET", "/v1/listen", "POST", DEEPGRAM),
        ("PUT", "//v1/listen/", "POST", DEEPGRAM),
        ("GET", "/v1/audio/transcriptions", "POST", OPENAI),
        ("GET", "/v1/realtime/client_secrets", "POST", OPENAI),
        ("DELETE", "/v2/transcribe", "POST", PARAKEET),
        ("PATCH", "/v1/transcribe", "POST", NATIVE),
        ("POST", "/metrics", "GET, HEAD", NATIVE),
        ("POST", "/", "GET, HEAD", NATIVE),
        ("POST", "/v1/stream", "GET", NATIVE),
    ],
)
def test_method_not_allowed(server: Server, method: str, path: str, allowed: str, form: set[str]) -> None:
    answer = httpx2.request(method, server.base + path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert is_in_form(answer.content, form)
    options = httpx2.request("OPTIONS", server.base + path)
    assert (options.status_code, options.headers["allow"]) == (204, f"{allowed}, OPTIONS")


@pytest.mark.parametrize(
    ("path", "form"), [("/v1/stream", NATIVE), ("/ws", NATIVE), ("/v3/stream", PARAKEET), ("/v2/listen", DEEPGRAM)]
)
def test_websocket_endpoint_over_http(server: Server, path: str, form: set[str]) -> None:
    answer = httpx2.get(server.base + path)
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert is_in_form(answer.content, form)


@pytest.mark.parametrize("path", ["/", "/ready", "/health", "/metrics", "/v1/models", "/v1/models/tiny", "/icon.svg"])
def test_head_is_get_without_body(server: Server, path: str) -> None:
    whole, head = httpx2.get(server.base + path), httpx2.head(server.base + path)
    assert (whole.status_code, head.status_code) == (200, 200)
    assert head.content == b""
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert int(head.headers["content-length"]) > 0


def test_head_without_get(server: Server) -> None:
    assert httpx2.head(server.base + "/v1/transcribe").status_code == 405
    assert httpx2.head(server.base + "/nothing").status_code == 404


@pytest.mark.parametrize("path", ["//v1/transcribe", "/v1/transcribe/", "/v1//transcribe", "///v1/transcribe//"])
def test_redundant_slashes(server: Server, path: str) -> None:
    status, body = server.post(path, DEMO.read_bytes())
    assert (status, json.loads(body)["text"]) == (200, SAID)


@pytest.mark.parametrize("path", ["//v1/stream", "/v1/stream/"])
def test_redundant_slashes_of_a_websocket(server: Server, path: str) -> None:
    with socket_of(server, path) as client:
        client.say(TINY)
        message = client.hear()
        assert message is not None
        assert message["type"] == "ready"


@pytest.mark.parametrize("kind", ["{}", "MULTIPART/FORM-DATA; {}", "Multipart/Form-Data ;charset=utf-8; {}"])
@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/transcribe", "/v2/transcribe"])
def test_media_type_of_forms_ignores_case(server: Server, kind: str, path: str) -> None:
    request = httpx2.Request("POST", server.base + path, files={"file": ("a.flac", DEMO.read_bytes())})
    body, usual = request.read(), request.headers["content-type"]
    boundary = usual.partition("; ")[2]
    kind = usual if kind == "{}" else kind.format(boundary.replace("boundary", "Boundary"))
    answer = httpx2.post(server.base + path, content=body, headers={"Content-Type": kind})
    assert answer.json()["text"] == SAID


@pytest.mark.parametrize("kind", ["multipart/form-data-x", "application/multipart/form-data", "x multipart/form-data"])
def test_similar_media_types_are_not_forms(server: Server, kind: str) -> None:
    answer = httpx2.post(server.base + "/v1/transcribe", content=DEMO.read_bytes(), headers={"Content-Type": kind})
    assert answer.json()["duration"] == pytest.approx(7.181)


@pytest.mark.parametrize("kind", ["application/json", "APPLICATION/JSON", "Application/Json;charset=UTF-8"])
def test_media_type_of_json_ignores_case(server: Server, kind: str) -> None:
    answer = httpx2.post(server.base + "/v1/listen", content=b"[1]", headers={"Content-Type": kind})
    assert "is no JSON with a `url`" in answer.json()["err_msg"]


def test_cors_exposes_every_header_of_ours() -> None:
    """Collects the response headers in the source that are not CORS-safelisted."""
    named = {"Allow", "Retry-After", "WWW-Authenticate"}
    for path in Path(ROOT / "src" / "conure" / "protocols").rglob("*.py"):
        named |= set(re.findall(r'"(Conure-\w+|dg-[a-z-]+)"', path.read_text()))
    assert {"Conure-Problems", "dg-error", "dg-request-id"} <= named
    assert named <= set(EXPOSED)
