"""The ASGI application of the web port: the routers of all HTTP and WebSocket protocols."""

from __future__ import annotations

from collections.abc import Callable, Collection

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from conure.errors import BadOption
from conure.protocols.deepgram.listen_file import listen_file
from conure.protocols.deepgram.listen_socket import listen_socket
from conure.protocols.deepgram.turns_socket import turns_socket
from conure.protocols.http.health import health
from conure.protocols.http.page import page
from conure.protocols.http.paths import handle_unrouted
from conure.protocols.marker_socket import marker_socket
from conure.protocols.native.errors import error_response
from conure.protocols.native.transcribe import transcribe_file
from conure.protocols.native.websocket import stream_socket
from conure.protocols.openai.rest import openai_rest
from conure.protocols.parakeet.socket import stream_router as parakeet_socket
from conure.protocols.parakeet.uploads import uploads_router as parakeet_uploads
from conure.protocols.realtime.client_secrets import client_secrets_router
from conure.protocols.realtime.websocket import realtime_socket
from conure.protocols.services import Services

__all__ = ["web_app"]

ROUTERS: tuple[tuple[str, Callable[[Services], APIRouter]], ...] = (
    ("native", stream_socket),
    ("parakeet", parakeet_uploads),  # first: requests on its path that are not forms fall through to `native`
    ("parakeet", parakeet_socket),
    ("native", transcribe_file),
    ("marker", marker_socket),
    ("openai", openai_rest),
    ("deepgram", listen_file),
    ("realtime", realtime_socket),
    ("realtime", client_secrets_router),
    ("deepgram", listen_socket),
    ("deepgram", turns_socket),
    ("page", page),
)
"""Name of the protocol, by which it can be disabled, and its router; a protocol may have several."""
CLIENT_CLOSED_REQUEST = 499


def web_app(services: Services, disabled: Collection[str] = ()) -> FastAPI:
    app = FastAPI(title="Conure", description="Speech to text on your own machine.", docs_url=None, redoc_url=None)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    for name, create_router in ROUTERS:
        if name not in disabled:
            app.include_router(create_router(services))
    app.include_router(health(services))
    handle_unrouted(app)
    return app


async def _on_disconnect(request: Request, error: Exception) -> Response:
    """The client does not read this response; the status is for logs."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return error_response(BadOption(f"{first['loc'][-1]} is {first['input']!r}", first["msg"].lower()))
