"""Tells a connection that its client has shown a key, before any door is asked: then it is not ended for others."""

from __future__ import annotations

from starlette.datastructures import Headers, QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from conure.protocols.http.connection_limits import Connection
from conure.protocols.http.credentials import secret_of
from conure.protocols.services import Services

__all__ = ["CONNECTION", "identifying"]

CONNECTION = "connection"
"""In a scope's state: the `Connection` that a request came over."""


def identifying(app: ASGIApp, behind: Services) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        connection: Connection | None = scope.get("state", {}).get(CONNECTION)
        if connection is not None and not connection.is_known:
            _identify(connection, scope, behind)
        await app(scope, receive, send)

    return answer


def _identify(connection: Connection, scope: Scope, behind: Services) -> None:
    """Over a WebSocket a client without a key has to say something, too: to open one costs nothing."""
    if not behind.access.needs_key:
        if scope["type"] == "http":
            connection.spoke()
        return
    secret = secret_of(Headers(scope=scope), QueryParams(scope["query_string"]))
    if secret is not None and (behind.access.knows(secret) or behind.secrets.open(secret)):
        connection.identified()
