"""Which path a request means, before any door is asked, and what it is told where no door has it.

    //v1/listen, /v1/listen/       /v1/listen: clients join a base and a path with a slash too many
    http://host/v1/listen          the same: a proxy's way to write it
    HEAD                           GET without its body

Where no door has a path or a method the answer is in the form of the path's protocol: 404, 405 with what is allowed,
426 for a WebSocket that is asked for over HTTP; OPTIONS tells what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from conure.protocols.errors_by_path import error_response_for_path
from conure.protocols.http.http_errors import INTERNAL_ERROR, method_not_allowed, unknown_path, upgrade_required

__all__ = ["answer_unrouted", "normalize_paths"]

ORIGIN = re.compile(r"https?://[^/?#]*", re.ASCII | re.IGNORECASE)
SLASHES = re.compile("/{2,}")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
EVERY_PATH = "*"
"""Of OPTIONS, for the server itself."""


def normalize_paths(app: ASGIApp) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope = {**scope, "path": _plain(scope["path"])}
            if scope.get("method") == "HEAD":  # the web server, which has the scope as it was, drops the body
                scope["method"] = "GET"
        await app(scope, receive, send)

    return answer


def answer_unrouted(app: FastAPI) -> None:
    """Takes the place of whatever the framework would say."""
    router = app.router
    router.redirect_slashes = False

    async def unrouted(scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(router.routes, scope)(scope, receive, send)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _answer(router.routes, request.scope)

    async def failed(request: Request, error: Exception) -> Response:
        """It is raised again afterwards, and logged."""
        return error_response_for_path(request.scope["path"], INTERNAL_ERROR)

    router.default = unrouted
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(Exception, failed)


def _plain(path: str) -> str:
    path = ORIGIN.sub("", path, count=1) if ORIGIN.match(path) else path
    return SLASHES.sub("/", path).rstrip("/") or "/" if path != EVERY_PATH else path


def _answer(routes: Iterable[BaseRoute], scope: Scope) -> Response:
    path, method = scope["path"], scope.get("method", "GET")
    if scope["type"] == "websocket":
        return error_response_for_path(path, unknown_path(path, "WebSocket "))
    allowed, is_socket = _allowed(routes, scope), _is_socket(routes, scope)
    if is_socket and not allowed:
        allowed = ["GET"]
    if method == "OPTIONS" and (allowed or path == EVERY_PATH):
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Allow": ", ".join([*allowed, "OPTIONS"])})
    if is_socket and method in allowed:
        answer = error_response_for_path(path, upgrade_required(path))
        answer.headers.update({"Upgrade": "websocket", "Connection": "Upgrade"})
        return answer
    if not allowed or method in allowed:
        return error_response_for_path(path, unknown_path(path, ""))
    answer = error_response_for_path(path, method_not_allowed(path, method, ", ".join(allowed)))
    answer.headers["Allow"] = ", ".join(allowed)
    return answer


def _allowed(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """Methods with which the path is served."""
    found = [method for method in METHODS if _matches(routes, {**scope, "method": method})]
    return [*found, "HEAD"] if "GET" in found else found


def _is_socket(routes: Iterable[BaseRoute], scope: Scope) -> bool:
    return _matches(routes, {**scope, "type": "websocket"})


def _matches(routes: Iterable[BaseRoute], scope: Scope) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in routes)
