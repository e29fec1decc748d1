"""Doors of the web port as one application."""

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
from conure.protocols.http.paths import answer_unrouted
from conure.protocols.marker_socket import marker_socket
from conure.protocols.native.errors import error_response
from conure.protocols.native.transcribe import recordings
from conure.protocols.native.websocket import stream_socket
from conure.protocols.openai.rest import openai_rest
from conure.protocols.parakeet.socket import stream_router as parakeet_socket
from conure.protocols.parakeet.uploads import uploads_router as parakeet_uploads
from conure.protocols.realtime.client_secrets import client_secrets_router
from conure.protocols.realtime.websocket import realtime_socket
from conure.protocols.services import Services

__all__ = ["web_app"]

DOORS: tuple[tuple[str, Callable[[Services], APIRouter]], ...] = (
    ("native", stream_socket),
    ("parakeet", parakeet_uploads),  # first: what is no form at their path is for the one after it
    ("parakeet", parakeet_socket),
    ("native", recordings),
    ("marker", marker_socket),
    ("openai", openai_rest),
    ("deepgram", listen_file),
    ("realtime", realtime_socket),
    ("realtime", client_secrets_router),
    ("deepgram", listen_socket),
    ("deepgram", turns_socket),
    ("page", page),
)
"""With the name by which each is closed; several routers may make one door."""
CLIENT_GONE = 499


def web_app(behind: Services, closed: Collection[str] = ()) -> FastAPI:
    app = FastAPI(title="Conure", description="Speech to text on your own machine.", docs_url=None, redoc_url=None)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(RequestValidationError, _misread)
    for name, door in DOORS:
        if name not in closed:
            app.include_router(door(behind))
    app.include_router(health(behind))
    answer_unrouted(app)
    return app


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody reads it; it is for the log."""
    return Response(status_code=CLIENT_GONE)


async def _misread(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return error_response(BadOption(f"{first['loc'][-1]} is {first['input']!r}", first["msg"].lower()))
