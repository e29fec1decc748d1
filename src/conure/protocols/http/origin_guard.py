"""Keeps web pages out that nobody has let in: a browser carries their requests to any server that it can reach.

    Origin   a page of another site may neither open a WebSocket nor send anything, unless `cors` has it
    Host     where whoever reaches the server may use it, it answers to names of this machine alone, or a page could
             give its own name this address

Programs that are no browsers send no Origin, and are not asked. Reading is the business of CORS: without its headers a
browser shows no answer to a page of another site.
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
HARMLESS = ("GET", "HEAD", "OPTIONS")
EVERY = "*"
EXPOSED = ("Allow", "Conure-Ignored", "Conure-Problems", "Retry-After", "WWW-Authenticate", "dg-error", "dg-request-id")
"""Headers of answers that pages may read."""
LONGEST_PREFLIGHT = 600
"""Seconds for which a browser remembers what it may."""


@dataclass(frozen=True)
class AllowedOrigins:
    """Which web pages may use the server."""

    origins: Collection[str] = ()
    local_names_only: bool = False
    """It answers to names of this machine alone."""
    host: str = "localhost"
    """The one that it listens on."""


def guard_origins(app: ASGIApp, pages: AllowedOrigins) -> ASGIApp:
    if pages.origins:
        app = CORSMiddleware(
            app,
            allow_origins=list(pages.origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=list(EXPOSED),
            max_age=LONGEST_PREFLIGHT,
        )
    return OriginGuard(app, pages)


class OriginGuard:
    def __init__(self, app: ASGIApp, pages: AllowedOrigins) -> None:
        self._app = app
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault(scope) if scope["type"] in ("http", "websocket") else None
        if fault is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket" or (await receive())["type"] != "http.disconnect":
            # before a WebSocket is accepted it is an answer over HTTP, too
            await error_response_for_path(scope["path"], fault)(scope, receive, send)

    def _fault(self, scope: Scope) -> Forbidden | None:
        host = origin = ""
        for name, value in scope["headers"]:
            if name == b"host":
                host = value.decode("latin-1")
            elif name == b"origin":
                origin = value.decode("latin-1")
        if self._pages.local_names_only and not _is_own(host, self._pages.host):
            return Forbidden(
                f"this server is not {host!r}: without keys it answers to localhost alone",
                "make keys with `conure keys add`, or start it with --allow-anonymous",
            )
        if not origin or (scope["type"] == "http" and scope["method"] in HARMLESS):
            return None
        if _is_same(origin, host) or EVERY in self._pages.origins or origin in self._pages.origins:
            return None
        return Forbidden(f"web pages of {origin!r} may not use this server", f"start it with --cors {origin}")


def _is_own(host: str, listens: str) -> bool:
    found = HOST.fullmatch(host)
    if found is None:
        return False
    name = found["name"].lower()
    if name in (listens.lower(), "localhost") or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_same(origin: str, host: str) -> bool:
    """Whether the page came from here. A proxy before us may have another scheme."""
    scheme, _, place = origin.partition("://")
    default = {"http": ":80", "https": ":443"}.get(scheme, "")
    return bool(place) and place.removesuffix(default).lower() == host.removesuffix(default).lower()
