"""Cross-origin web pages are refused; programs other than browsers are not affected."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from conure.protocols.http.origin_guard import AllowedOrigins, guard_origins

Message = dict[str, Any]
LOCAL = AllowedOrigins(local_names_only=True, host="127.0.0.1")


def request(
    pages: AllowedOrigins, host: str | None, origin: str | None = None, method: str = "POST", **extra: str
) -> Message:
    """Status, headers and body of the response; an accepted WebSocket has status 0, an accepted request 200."""
    kind = "websocket" if method == "WEBSOCKET" else "http"
    named = {"host": host, "origin": origin} | {name.replace("_", "-"): value for name, value in extra.items()}
    headers = [(name.encode(), value.encode("latin-1")) for name, value in named.items() if value is not None]
    scope = {"type": kind, "method": method, "path": "/", "headers": headers, "query_string": b""}
    scope |= {"extensions": {"websocket.http.response": {}}} if kind == "websocket" else {}
    sent: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard_origins(app, pages)(scope, receive, send))
    if sent[0]["type"] == "websocket.accept":
        return {"status": 0}
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return {"status": sent[0]["status"], "headers": headers, "body": sent[1]["body"]}


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "LOCALHOST:8000", "127.0.0.1:8000", "127.1.2.3", "[::1]:8000", "a.localhost"],
)
def test_local_host_names(host: str) -> None:
    assert request(LOCAL, host)["status"] == 200
    assert request(LOCAL, host, method="WEBSOCKET")["status"] == 0


@pytest.mark.parametrize(
    "host",
    [
        *("example.com", "example.com:8000", "localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "", None),
        *("localhost@example.com", "localhost/../example.com", "[", "[::2]", "0x7f000001", "evil localhost", "\xff"),
    ],
)
def test_other_host_names_are_refused_without_keys(host: str | None) -> None:
    for method in ("GET", "POST", "WEBSOCKET"):
        response = request(LOCAL, host, method=method)
        assert response["status"] == 403
        assert json.loads(response["body"])["error"]["code"] == "forbidden"
    assert request(AllowedOrigins(), host)["status"] == 200


def test_configured_host_name() -> None:
    assert request(AllowedOrigins(local_names_only=True, host="Workstation"), "workstation:8000")["status"] == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("localhost:8000", "http://LOCALHOST:8000"),
        ("stt.example.com", "https://stt.example.com"),
        ("stt.example.com", "https://stt.example.com:443"),
        ("stt.example.com:80", "http://stt.example.com"),
    ],
)
def test_same_origin_pages(host: str, origin: str) -> None:
    assert request(AllowedOrigins(), host, origin)["status"] == 200
    assert request(AllowedOrigins(), host, origin, "WEBSOCKET")["status"] == 0


@pytest.mark.parametrize(
    "origin",
    ["https://example.com", "http://localhost:3000", "http://127.0.0.1:8000", "null", "file://", "localhost:8000", "x"],
)
def test_cross_origin_pages_are_refused(origin: str) -> None:
    for method in ("POST", "DELETE", "WEBSOCKET"):
        response = request(AllowedOrigins(), "localhost:8000", origin, method)
        assert response["status"] == 403
        assert origin in json.loads(response["body"])["error"]["message"]
    response = request(AllowedOrigins(), "localhost:8000", origin, "GET")
    assert "access-control-allow-origin" not in response["headers"]


def test_cors_origins_are_allowed() -> None:
    pages = AllowedOrigins(("https://example.com",))
    response = request(pages, "localhost", "https://example.com")
    assert response["status"] == 200
    assert response["headers"]["access-control-allow-origin"] == "https://example.com"
    assert "Retry-After" in response["headers"]["access-control-expose-headers"]
    assert request(pages, "localhost", "https://example.com", "WEBSOCKET")["status"] == 0
    assert request(pages, "localhost", "https://example.org")["status"] == 403
    assert request(pages, "localhost", "https://example.org", "WEBSOCKET")["status"] == 403
    assert request(AllowedOrigins(("*",)), "localhost", "https://example.org", "WEBSOCKET")["status"] == 0
    assert request(AllowedOrigins(("*",)), "localhost", "null")["headers"]["access-control-allow-origin"] == "*"


def test_preflight_request() -> None:
    options = {"access_control_request_method": "POST", "access_control_request_headers": "authorization"}
    response = request(
        AllowedOrigins(("https://example.com",)), "localhost", "https://example.com", "OPTIONS", **options
    )
    assert response["status"] == 200
    assert response["headers"]["access-control-allow-headers"] == "authorization"
    response = request(
        AllowedOrigins(("https://example.com",)), "localhost", "https://example.org", "OPTIONS", **options
    )
    assert response["status"] == 400
    assert "access-control-allow-origin" not in response["headers"]
