"""Errors of requests before a protocol handles them: not HTTP, too long, too late, or without a route."""

from __future__ import annotations

from conure.errors import BadRequest, Busy, ConureError

__all__ = [
    "INCOMPLETE_REQUEST",
    "TLS_ON_PLAIN_PORT",
    "PLAIN_ON_TLS_PORT",
    "NO_CAPACITY",
    "HEAD_TIMEOUT",
    "NOT_HTTP",
    "INTERNAL_ERROR",
    "BODY_STALLED",
    "HttpFault",
    "head_too_long",
    "upgrade_required",
    "bad_handshake",
    "unknown_path",
    "method_not_allowed",
    "unsupported_version",
    "target_too_long",
]


class HttpFault(BadRequest):
    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.code = code


NOT_HTTP = HttpFault("bad_http", "the bytes are not an HTTP request", "this port supports version 1.1, and WebSocket")
INCOMPLETE_REQUEST = HttpFault("bad_http", "the connection ended before the request did", "send the whole request")
TLS_ON_PLAIN_PORT = HttpFault("bad_http", "this port is not encrypted", "use http:// or ws://")
HEAD_TIMEOUT = HttpFault(
    "request_timeout", "the head of the request did not arrive in time", "send it right after connecting"
)
PLAIN_ON_TLS_PORT = HttpFault("bad_http", "this port is encrypted", "use https:// or wss://")
BODY_STALLED = HttpFault(
    "request_timeout", "the body of the request has stalled", "send the request again, without pauses"
)
NO_CAPACITY = Busy("the server is at its connection limit", "retry later, or send a key with the first bytes")


class _InternalError(ConureError):
    code = "engine_failed"


INTERNAL_ERROR = _InternalError("internal server error", "see the server log")


def target_too_long(max_bytes: int) -> HttpFault:
    return HttpFault("address_too_long", f"the request target has more than {max_bytes} bytes", "send a shorter query")


def head_too_long(limit: str) -> HttpFault:
    return HttpFault("head_too_long", f"the head of the request has more than {limit}", "send fewer or shorter headers")


def unsupported_version(version: str) -> HttpFault:
    return HttpFault("http_version", f"HTTP version {version} is not supported", "use version 1.1")


def bad_handshake(fault: str) -> HttpFault:
    return HttpFault("bad_http", fault, "use GET and version 13 of the WebSocket protocol")


def unknown_path(path: str, kind: str) -> HttpFault:
    return HttpFault("unknown_path", f"unknown path: {kind}{path[:200]!r}", "see docs/server.md for all paths")


def method_not_allowed(path: str, method: str, allowed: str) -> HttpFault:
    return HttpFault("wrong_method", f"{path[:200]!r} does not support {method[:20]!r}; allowed: {allowed}", None)


def upgrade_required(path: str) -> HttpFault:
    return HttpFault("upgrade_required", f"{path[:200]!r} is a WebSocket endpoint", "open it with ws:// or wss://")
