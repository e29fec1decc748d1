"""Normalizes request paths before routing, and answers requests without a route.

    //v1/listen, /v1/listen/       become /v1/listen: clients join a base and a path with redundant slashes
    http://host/v1/listen          becomes the same: the absolute form, used by proxies
    HEAD                           becomes GET; the web server drops the body

Responses for an unknown path or method have the format of the path's protocol: 404, 405 with the allowed methods, 426
for a WebSocket endpoint requested over HTTP. OPTIONS lists the allowed methods.
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

__all__ = ["handle_unrouted", "normalize_paths"]

ORIGIN = re.compile(r"https?://[^/?#]*", re.ASCII | re.IGNORECASE)
SLASHES = re.compile("/{2,}")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ANY_PATH = "*"
"""Path of an OPTIONS request to the server itself."""


def normalize_paths(app: ASGIApp) -> ASGIApp:
    async def normalize(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope = {**scope, "path": _normalize(scope["path"])}
            if scope.get("method") == "HEAD":  # the web server keeps the original scope, and drops the body
                scope["method"] = "GET"
        await app(scope, receive, send)

    return normalize


def handle_unrouted(app: FastAPI) -> None:
    """Replaces the framework's default responses."""
    router = app.router
    router.redirect_slashes = False

    async def unrouted(scope: Scope, receive: Receive, send: Send) -> None:
        await _response(router.routes, scope)(scope, receive, send)

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _response(router.routes, request.scope)

    async def on_exception(request: Request, error: Exception) -> Response:
        """Starlette raises the exception again afterwards, and it is logged."""
        return error_response_for_path(request.scope["path"], INTERNAL_ERROR)

    router.default = unrouted
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Exception, on_exception)


def _normalize(path: str) -> str:
    path = ORIGIN.sub("", path, count=1) if ORIGIN.match(path) else path
    return SLASHES.sub("/", path).rstrip("/") or "/" if path != ANY_PATH else path


def _response(routes: Iterable[BaseRoute], scope: Scope) -> Response:
    path, method = scope["path"], scope.get("method", "GET")
    if scope["type"] == "websocket":
        return error_response_for_path(path, unknown_path(path, "WebSocket "))
    allowed, is_socket = _allowed(routes, scope), _is_socket(routes, scope)
    if is_socket and not allowed:
        allowed = ["GET"]
    if method == "OPTIONS" and (allowed or path == ANY_PATH):
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Allow": ", ".join([*allowed, "OPTIONS"])})
    if is_socket and method in allowed:
        response = error_response_for_path(path, upgrade_required(path))
        response.headers.update({"Upgrade": "websocket", "Connection": "Upgrade"})
        return response
    if not allowed or method in allowed:
        return error_response_for_path(path, unknown_path(path, ""))
    response = error_response_for_path(path, method_not_allowed(path, method, ", ".join(allowed)))
    response.headers["Allow"] = ", ".join(allowed)
    return response


def _allowed(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """HTTP methods for which the path has a route."""
    methods = [method for method in METHODS if _matches(routes, {**scope, "method": method})]
    return [*methods, "HEAD"] if "GET" in methods else methods


def _is_socket(routes: Iterable[BaseRoute], scope: Scope) -> bool:
    return _matches(routes, {**scope, "type": "websocket"})


def _matches(routes: Iterable[BaseRoute], scope: Scope) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in routes)
