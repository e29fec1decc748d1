"""Web pages of others are kept out; everything that is no browser notices nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from conure.protocols.http.origin_guard import AllowedOrigins, guard_origins

Message = dict[str, Any]
LOCAL = AllowedOrigins(local_names_only=True, host="127.0.0.1")


def ask(
    pages: AllowedOrigins, host: str | None, origin: str | None = None, method: str = "POST", **extra: str
) -> Message:
    """The answer's status, headers and body; status 0 where a WebSocket came through, 200 where a request did."""
    kind = "websocket" if method == "WEBSOCKET" else "http"
    named = {"host": host, "origin": origin} | {name.replace("_", "-"): value for name, value in extra.items()}
    headers = [(name.encode(), value.encode("latin-1")) for name, value in named.items() if value is not None]
    scope = {"type": kind, "method": method, "path": "/", "headers": headers, "query_string": b""}
    scope |= {"extensions": {"websocket.http.response": {}}} if kind == "websocket" else {}
    said: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        said.append(message)

    asyncio.run(guard_origins(app, pages)(scope, receive, send))
    if said[0]["type"] == "websocket.accept":
        return {"status": 0}
    told = {name.decode(): value.decode() for name, value in said[0]["headers"]}
    return {"status": said[0]["status"], "headers": told, "body": said[1]["body"]}


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "LOCALHOST:8000", "127.0.0.1:8000", "127.1.2.3", "[::1]:8000", "a.localhost"],
)
def test_names_of_this_machine(host: str) -> None:
    assert ask(LOCAL, host)["status"] == 200
    assert ask(LOCAL, host, method="WEBSOCKET")["status"] == 0


@pytest.mark.parametrize(
    "host",
    [
        *("example.com", "example.com:8000", "localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "", None),
        *("localhost@example.com", "localhost/../example.com", "[", "[::2]", "0x7f000001", "evil localhost", "\xff"),
    ],
)
def test_other_names_are_not_answered_where_there_are_no_keys(host: str | None) -> None:
    for method in ("GET", "POST", "WEBSOCKET"):
        told = ask(LOCAL, host, method=method)
        assert told["status"] == 403
        assert json.loads(told["body"])["error"]["code"] == "forbidden"
    assert ask(AllowedOrigins(), host)["status"] == 200


def test_a_name_that_the_server_was_given() -> None:
    assert ask(AllowedOrigins(local_names_only=True, host="Workstation"), "workstation:8000")["status"] == 200


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
def test_the_servers_own_pages(host: str, origin: str) -> None:
    assert ask(AllowedOrigins(), host, origin)["status"] == 200
    assert ask(AllowedOrigins(), host, origin, "WEBSOCKET")["status"] == 0


@pytest.mark.parametrize(
    "origin",
    ["https://example.com", "http://localhost:3000", "http://127.0.0.1:8000", "null", "file://", "localhost:8000", "x"],
)
def test_pages_of_others_may_not(origin: str) -> None:
    for method in ("POST", "DELETE", "WEBSOCKET"):
        told = ask(AllowedOrigins(), "localhost:8000", origin, method)
        assert told["status"] == 403
        assert origin in json.loads(told["body"])["error"]["message"]
    told = ask(AllowedOrigins(), "localhost:8000", origin, "GET")
    assert "access-control-allow-origin" not in told["headers"]


def test_unless_cors_has_them() -> None:
    pages = AllowedOrigins(("https://example.com",))
    told = ask(pages, "localhost", "https://example.com")
    assert told["status"] == 200
    assert told["headers"]["access-control-allow-origin"] == "https://example.com"
    assert "Retry-After" in told["headers"]["access-control-expose-headers"]
    assert ask(pages, "localhost", "https://example.com", "WEBSOCKET")["status"] == 0
    assert ask(pages, "localhost", "https://example.org")["status"] == 403
    assert ask(pages, "localhost", "https://example.org", "WEBSOCKET")["status"] == 403
    assert ask(AllowedOrigins(("*",)), "localhost", "https://example.org", "WEBSOCKET")["status"] == 0
    assert ask(AllowedOrigins(("*",)), "localhost", "null")["headers"]["access-control-allow-origin"] == "*"


def test_a_browser_asks_first() -> None:
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "authorization"}
    told = ask(AllowedOrigins(("https://example.com",)), "localhost", "https://example.com", "OPTIONS", **asked)
    assert told["status"] == 200
    assert told["headers"]["access-control-allow-headers"] == "authorization"
    told = ask(AllowedOrigins(("https://example.com",)), "localhost", "https://example.org", "OPTIONS", **asked)
    assert told["status"] == 400
    assert "access-control-allow-origin" not in told["headers"]
