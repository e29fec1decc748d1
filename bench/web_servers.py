"""The servers that could carry the doors, each as one process with one event loop, over an application of two kinds.

empty   reads what WebSockets bring, answers texts, and does nothing else
door    the door of the native protocol over an engine that is a stand-in

Both have two addresses of HTTP: `/small`, and `/upload`, which takes a body as recordings are taken.
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
from bench.speakers import LATENCY_MS
from conure.event_loop import new_event_loop
from conure.protocols.http.uploads import received
from conure.protocols.http.uvicorn_websocket import DIRECT_AUDIO, SET_RECEIVER, DirectWebSocket
from conure.protocols.native.websocket import stream_socket
from conure.protocols.services import Services
from conure.server import LONGEST_MESSAGE
from conure.service.file_service import FileService
from conure.service.status import ProcessStatus
from conure.service.tokenizer_cache import TokenizerCache

__all__ = ["OF_HTTP", "OF_SOCKETS", "serve"]

OF_SOCKETS = ("uvicorn", "short way", "granian", "picows")
OF_HTTP = ("uvicorn, h11", "uvicorn, httptools", "granian")
PONG = '{"type":"pong"}'
WHICH = "CONURE_BENCH_APPLICATION"
"""Variable that tells granian's worker which application it is to make."""


def serve(name: str, application: str, port: int) -> None:
    """Never returns."""
    os.environ[WHICH] = application
    match name:
        case "granian":
            _granian(port)
        case "picows":
            from bench.served_picows import serve_picows  # noqa: PLC0415  it is no dependency of ours

            _run(serve_picows(application, port))
        case "short way":
            _run(_uvicorn(make(), port, DirectWebSocket, "auto"))
        case _:
            _run(_uvicorn(make(), port, WebSocketsSansIOProtocol, name.partition(", ")[2] or "auto"))


def make() -> FastAPI:
    is_door = os.environ[WHICH] == "door"
    app = FastAPI(lifespan=_with_door if is_door else None)

    @app.get("/small")
    async def small() -> JSONResponse:
        return JSONResponse({"ready": True})

    @app.post("/upload")
    async def upload(request: Request) -> JSONResponse:
        async with received(request, 2**31) as file:
            return JSONResponse({"bytes": file.seek(0, os.SEEK_END)})

    if not is_door:
        app.add_api_websocket_route("/v1/stream", _nowhere)
    return app


@contextlib.asynccontextmanager
async def _with_door(app: FastAPI) -> AsyncIterator[None]:
    async with service(LATENCY_MS) as (live, _):
        app.include_router(
            stream_socket(Services(live, FileService(live.engine, TokenizerCache()), ProcessStatus(live)))
        )
        yield


async def _nowhere(socket: WebSocket) -> None:
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
        app, port=port, log_config=None, access_log=False, ws=ws, http=http, ws_max_size=LONGEST_MESSAGE,
        ws_per_message_deflate=False,
    )  # fmt: skip
    await uvicorn.Server(config).serve()


def _granian(port: int) -> None:
    from granian import Granian  # noqa: PLC0415  it is no dependency of ours
    from granian.constants import Interfaces, Loops  # noqa: PLC0415

    Granian(
        "bench.served:make", port=port, interface=Interfaces.ASGI, loop=Loops.uvloop, factory=True, log_enabled=False
    ).serve()
