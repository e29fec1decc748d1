"""Tells a connection that its client has shown a key, before any door is asked: then it is not ended for others."""

from __future__ import annotations

from starlette.datastructures import Headers, QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from conure.protocols.http.connection_limits import Connection
from conure.protocols.http.credentials import read_credential
from conure.protocols.services import Services

__all__ = ["CONNECTION", "identify_connections"]

CONNECTION = "connection"
"""In a scope's state: the `Connection` that a request came over."""


def identify_connections(app: ASGIApp, behind: Services) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        connection: Connection | None = scope.get("state", {}).get(CONNECTION)
        if connection is not None and not connection.is_identified:
            _identify(connection, scope, behind)
        await app(scope, receive, send)

    return answer


def _identify(connection: Connection, scope: Scope, behind: Services) -> None:
    """Over a WebSocket a client without a key has to say something, too: to open one costs nothing."""
    if not behind.access.needs_key:
        if scope["type"] == "http":
            connection.mark_message_received()
        return
    secret = read_credential(Headers(scope=scope), QueryParams(scope["query_string"]))
    if secret is not None and (behind.access.is_valid_key(secret) or behind.secrets.verify(secret)):
        connection.mark_identified()
