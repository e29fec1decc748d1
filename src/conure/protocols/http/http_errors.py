"""What may be wrong with a request before any door has it: it is no HTTP, too long, too late, or for nobody."""

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


NOT_HTTP = HttpFault("bad_http", "this is no request of HTTP", "the port speaks version 1.1 and WebSocket")
INCOMPLETE_REQUEST = HttpFault("bad_http", "the connection ended before the request did", "send all of it")
TLS_ON_PLAIN_PORT = HttpFault("bad_http", "this port is not encrypted", "use http:// or ws://")
HEAD_TIMEOUT = HttpFault("request_timeout", "the head of the request did not come in time", "send it at once")
PLAIN_ON_TLS_PORT = HttpFault("bad_http", "this port is encrypted", "use https:// or wss://")
BODY_STALLED = HttpFault(
    "request_timeout", "the body of the request does not come any more", "send it again, without pauses"
)
NO_CAPACITY = Busy("the server has no room for more connections", "try again later, or send a key with the first bytes")


class _Ours(ConureError):
    code = "engine_failed"


INTERNAL_ERROR = _Ours("the server made a mistake", "its log tells which")


def target_too_long(most: int) -> HttpFault:
    return HttpFault("address_too_long", f"the address has more than {most} bytes", "ask for less in the query")


def head_too_long(what: str) -> HttpFault:
    return HttpFault("head_too_long", f"the head of the request has more than {what}", "send fewer or shorter headers")


def unsupported_version(version: str) -> HttpFault:
    return HttpFault("http_version", f"version {version} of HTTP is not spoken here", "speak version 1.1")


def bad_handshake(fault: str) -> HttpFault:
    return HttpFault("bad_http", fault, "open it with GET, in version 13 of the protocol")


def unknown_path(path: str, kind: str) -> HttpFault:
    return HttpFault("unknown_path", f"there is no {kind}{path[:200]!r} here", "docs/server.md lists what there is")


def method_not_allowed(path: str, method: str, allowed: str) -> HttpFault:
    return HttpFault("wrong_method", f"{path[:200]!r} is not for {method[:20]!r} but for {allowed}", None)


def upgrade_required(path: str) -> HttpFault:
    return HttpFault("upgrade_required", f"{path[:200]!r} is a WebSocket", "open it with ws:// or wss://")
