"""Protects against cross-site requests: a browser sends a page's requests to any server that it can reach.

    Origin   a page of another site may neither open a WebSocket nor send requests, unless `cors` allows its origin
    Host     without keys, the server only accepts names of this machine: a page could otherwise point a name of its own
             to this address (DNS rebinding)

Programs other than browsers send no Origin and are not checked. Reading responses is controlled by CORS: without its
headers, a browser does not show them to a page of another site.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from conure.errors import Forbidden
from conure.protocols.errors_by_path import error_response_for_path

__all__ = ["OriginGuard", "AllowedOrigins", "guard_origins"]

HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[\w.-]+)(:[0-9]+)?", re.ASCII)
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
ANY_ORIGIN = "*"
EXPOSED = ("Allow", "Conure-Ignored", "Conure-Problems", "Retry-After", "WWW-Authenticate", "dg-error", "dg-request-id")
"""Response headers that pages may read."""
PREFLIGHT_MAX_AGE = 600
"""Seconds for which a browser caches a preflight response."""


@dataclass(frozen=True)
class AllowedOrigins:
    """Origins of the web pages that may use the server."""

    origins: Collection[str] = ()
    local_names_only: bool = False
    """Whether the Host header must be a name of this machine."""
    host: str = "localhost"
    """Address that the server listens on."""


def guard_origins(app: ASGIApp, allowed: AllowedOrigins) -> ASGIApp:
    if allowed.origins:
        app = CORSMiddleware(
            app,
            allow_origins=list(allowed.origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=list(EXPOSED),
            max_age=PREFLIGHT_MAX_AGE,
        )
    return OriginGuard(app, allowed)


class OriginGuard:
    def __init__(self, app: ASGIApp, allowed: AllowedOrigins) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault(scope) if scope["type"] in ("http", "websocket") else None
        if fault is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket" or (await receive())["type"] != "http.disconnect":
            # a WebSocket that is not yet accepted gets an HTTP response, too
            await error_response_for_path(scope["path"], fault)(scope, receive, send)

    def _fault(self, scope: Scope) -> Forbidden | None:
        host = origin = ""
        for name, value in scope["headers"]:
            if name == b"host":
                host = value.decode("latin-1")
            elif name == b"origin":
                origin = value.decode("latin-1")
        if self._allowed.local_names_only and not _is_local_name(host, self._allowed.host):
            return Forbidden(
                f"the Host {host!r} is not a name of this machine, and a server without keys accepts no others",
                "create keys with `conure keys add`, or start the server with --open-to-all",
            )
        if not origin or (scope["type"] == "http" and scope["method"] in SAFE_METHODS):
            return None
        if _is_same_site(origin, host) or ANY_ORIGIN in self._allowed.origins or origin in self._allowed.origins:
            return None
        return Forbidden(f"web pages of {origin!r} may not use this server", f"start the server with --cors {origin}")


def _is_local_name(host: str, listen_address: str) -> bool:
    match = HOST.fullmatch(host)
    if match is None:
        return False
    name = match["name"].lower()
    if name in (listen_address.lower(), "localhost") or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_same_site(origin: str, host: str) -> bool:
    """Whether the page was served by this server. The scheme may differ behind a proxy."""
    scheme, _, address = origin.partition("://")
    default = {"http": ":80", "https": ":443"}.get(scheme, "")
    return bool(address) and address.removesuffix(default).lower() == host.removesuffix(default).lower()
