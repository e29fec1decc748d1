"""Unexpected exceptions of a request or connection: they are logged and counted, and end only that request.

Protocols report expected errors in their own format. All other exceptions end up here. The client gets an internal
error instead of a broken connection.
"""

from __future__ import annotations

from msgspec import json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conure.background import report_failure
from conure.errors import EngineFailed

__all__ = ["CONNECTION", "catch_internal_errors", "internal_error"]

CONNECTION, REQUEST = "serving a connection", "answering a request"
INTERNAL_ERROR_CODE = 1011
"""Close code of a WebSocket."""


def internal_error() -> EngineFailed:
    """The error that a client gets; the log has the details."""
    return EngineFailed("internal server error", "see the server log")


def catch_internal_errors(app: ASGIApp) -> ASGIApp:
    """ASGI middleware: an unexpected exception becomes a response with status 500 or close code 1011."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        sent: set[str] = set()

        async def send_and_record(message: Message) -> None:
            sent.add(message["type"])
            await send(message)

        try:
            await app(scope, receive, send_and_record)
        except Exception as error:
            is_web_socket = scope["type"] == "websocket"
            report_failure(CONNECTION if is_web_socket else REQUEST, error)
            if is_web_socket and "websocket.close" not in sent:
                await send({"type": "websocket.close", "code": INTERNAL_ERROR_CODE, "reason": internal_error().message})
            elif not is_web_socket and "http.response.start" not in sent:
                await _send_error(send)

    return serve


async def _send_error(send: Send) -> None:
    error = internal_error()
    body = json.encode(
        {"error": {"code": error.code, "message": error.message, "hint": error.hint, "retry_after": None}}
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})
