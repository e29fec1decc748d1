"""Web servers to compare, each as one process with one event loop, with one of two applications.

empty   reads WebSocket messages and answers text messages
door    the native protocol with a stand-in for the engine

Both have two HTTP endpoints: `/small`, and `/upload`, which receives a body as recordings are received.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from bench.packets import service
from bench.websocket_load import LATENCY_MS
from conure.event_loop import new_event_loop
from conure.protocols.http.uploads import Uploads
from conure.protocols.http.uvicorn_websocket import DIRECT_AUDIO, SET_RECEIVER, DirectWebSocket
from conure.protocols.native.websocket import stream_socket
from conure.protocols.services import Services
from conure.server import MAX_MESSAGE_BYTES
from conure.service.file_service import FileService
from conure.service.status import ProcessStatus
from conure.service.tokenizer_cache import TokenizerCache

__all__ = ["HTTP_SERVERS", "WEBSOCKET_SERVERS", "serve"]

WEBSOCKET_SERVERS = ("uvicorn", "short way", "granian", "picows")
HTTP_SERVERS = ("uvicorn, h11", "uvicorn, httptools", "granian")
PONG = '{"type":"pong"}'
APPLICATION_VARIABLE = "CONURE_BENCH_APPLICATION"
"""Environment variable with the application for granian's worker."""


def serve(name: str, application: str, port: int) -> None:
    """Never returns."""
    os.environ[APPLICATION_VARIABLE] = application
    match name:
        case "granian":
            _granian(port)
        case "picows":
            from bench.picows_server import serve_picows  # noqa: PLC0415  not a dependency of Conure

            _run(serve_picows(application, port))
        case "short way":
            _run(_uvicorn(make(), port, DirectWebSocket, "auto"))
        case _:
            _run(_uvicorn(make(), port, WebSocketsSansIOProtocol, name.partition(", ")[2] or "auto"))


def make() -> FastAPI:
    is_native = os.environ[APPLICATION_VARIABLE] == "door"
    uploads = Uploads(2**31, 128)
    app = FastAPI(lifespan=_with_native_protocol if is_native else None)

    @app.get("/small")
    async def small() -> JSONResponse:
        return JSONResponse({"ready": True})

    @app.post("/upload")
    async def upload(request: Request) -> JSONResponse:
        async with uploads.receive_body(request) as file:
            return JSONResponse({"bytes": file.seek(0, os.SEEK_END)})

    if not is_native:
        app.add_api_websocket_route("/v1/stream", _discard)
    return app


@contextlib.asynccontextmanager
async def _with_native_protocol(app: FastAPI) -> AsyncIterator[None]:
    async with service(LATENCY_MS) as (live, _):
        app.include_router(
            stream_socket(Services(live, FileService(live.engine, TokenizerCache()), ProcessStatus(live)))
        )
        yield


async def _discard(socket: WebSocket) -> None:
    await socket.accept()
    if direct := (socket.scope.get("extensions") or {}).get(DIRECT_AUDIO):
        direct[SET_RECEIVER](lambda data: True)
    with contextlib.suppress(WebSocketDisconnect):
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            if message.get("text"):
                await socket.send_text(PONG)


def _run(server: Any) -> None:
    with asyncio.Runner(loop_factory=new_event_loop) as loop:
        loop.run(server)


async def _uvicorn(app: FastAPI, port: int, ws: Any, http: Any) -> None:
    config = uvicorn.Config(
        app, port=port, log_config=None, access_log=False, ws=ws, http=http, ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
    )  # fmt: skip
    await uvicorn.Server(config).serve()


def _granian(port: int) -> None:
    from granian import Granian  # noqa: PLC0415  not a dependency of Conure
    from granian.constants import Interfaces, Loops  # noqa: PLC0415

    Granian(
        "bench.web_servers:make",
        port=port,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        factory=True,
        log_enabled=False,
    ).serve()
