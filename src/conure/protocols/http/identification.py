"""Marks connections whose requests have a valid key, before routing, so that they are not closed to make room."""

from __future__ import annotations

from starlette.datastructures import Headers, QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from conure.protocols.http.connection_limits import Connection
from conure.protocols.http.credentials import read_credential
from conure.protocols.services import Services

__all__ = ["CONNECTION", "identify_connections"]

CONNECTION = "connection"
"""Key in the scope's state: the `Connection` of the request."""


def identify_connections(app: ASGIApp, services: Services) -> ASGIApp:
    async def identify(scope: Scope, receive: Receive, send: Send) -> None:
        connection: Connection | None = scope.get("state", {}).get(CONNECTION)
        if connection is not None and not connection.is_identified:
            _identify(connection, scope, services)
        await app(scope, receive, send)

    return identify


def _identify(connection: Connection, scope: Scope, services: Services) -> None:
    """Without keys, an HTTP request identifies its connection; a WebSocket is identified by its first message."""
    if not services.access.needs_key:
        if scope["type"] == "http":
            connection.mark_message_received()
        return
    secret = read_credential(Headers(scope=scope), QueryParams(scope["query_string"]))
    if secret is not None and (services.access.is_valid_key(secret) or services.secrets.verify(secret)):
        connection.mark_identified()
