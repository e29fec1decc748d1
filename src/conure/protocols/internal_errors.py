"""Mistakes of ours in the middle of a request or a conversation: they end it by name, and nothing else.

Doors refuse what they know is wrong in their own protocol. What nobody foresaw gets here: it is logged under a name and
counted, and the client hears that it was our fault, not a broken connection.
"""

from __future__ import annotations

from msgspec import json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conure.background import report_failure
from conure.errors import EngineFailed

__all__ = ["CONNECTION", "catch_internal_errors", "internal_error"]

CONNECTION, REQUEST = "serving a connection", "answering a request"
CLOSED = 1011


def internal_error() -> EngineFailed:
    """What a client is told; the log has the rest."""
    return EngineFailed("the server made a mistake", "its log tells which")


def catch_internal_errors(app: ASGIApp) -> ASGIApp:
    """The app, whose unforeseen errors end in an answer or with code 1011."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        sent: set[str] = set()

        async def noted(message: Message) -> None:
            sent.add(message["type"])
            await send(message)

        try:
            await app(scope, receive, noted)
        except Exception as error:
            is_web_socket = scope["type"] == "websocket"
            report_failure(CONNECTION if is_web_socket else REQUEST, error)
            if is_web_socket and "websocket.close" not in sent:
                await send({"type": "websocket.close", "code": CLOSED, "reason": internal_error().message})
            elif not is_web_socket and "http.response.start" not in sent:
                await _refuse(send)

    return serve


async def _refuse(send: Send) -> None:
    error = internal_error()
    body = json.encode(
        {"error": {"code": error.code, "message": error.message, "hint": error.hint, "retry_after": None}}
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})
