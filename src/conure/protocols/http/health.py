"""Is the server alive, does it take streams, what does it measure: `/health`, `/ready`, `/metrics`, `/status`.

Where keys are needed, strangers are told whether it is alive and ready, and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from conure.errors import ConureError
from conure.protocols.http.acceptor import Acceptor
from conure.protocols.http.connection_limits import Connection
from conure.protocols.http.credentials import read_credential
from conure.protocols.native.errors import error_response
from conure.protocols.native.schemas import REFUSALS, Bare, Health, Readiness
from conure.protocols.services import Services
from conure.protocols.tcp_port import TcpPort, serve_tcp_port

__all__ = ["health", "serve_status"]

BARE = ("status", "ready")
"""What strangers are told."""


def health(behind: Services) -> APIRouter:
    router, status = APIRouter(), behind.status
    answers: dict[int | str, Any] = {200: {"model": Health | Bare}, **REFUSALS}

    async def check(secret: str | None) -> None:
        """Raises Unauthorized or Forbidden."""
        await behind.access.identify(secret).begin_usage("status")

    @router.get("/health", response_model=None, responses=answers)
    async def alive(request: Request) -> JSONResponse:
        """The process answers; 200 while it does. A key for status shows more."""
        secret = read_credential(request.headers, request.query_params)
        is_stranger = secret is None and behind.access.needs_key
        try:
            if not is_stranger:
                await check(secret)
            told = await status.report()
        except ConureError as error:
            return error_response(error)
        return JSONResponse(_bare(told) if is_stranger else told)

    @router.get("/ready", responses={200: {"model": Readiness}, 503: {"model": Readiness}})
    async def ready() -> JSONResponse:
        """200 while new streams are taken, else 503."""
        return JSONResponse({"ready": status.is_ready}, status_code=200 if status.is_ready else 503)

    @router.get("/metrics", response_class=PlainTextResponse, responses=REFUSALS)
    async def measured(request: Request) -> Response:
        """For Prometheus."""
        try:
            await check(read_credential(request.headers, request.query_params))
            measured = await status.render_metrics()
        except ConureError as error:
            return error_response(error)
        return Response(measured, media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


async def serve_status(behind: Services, host: str, port: int, *, shared: bool = False) -> Acceptor:
    """A port that says how the server is, in one line of JSON, and hangs up. Several processes may share it."""

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection) -> None:
        try:
            found = await behind.status.report()
            told = {"type": "status", "connected_streams": found["streams"]}
            told |= _bare(found) if behind.access.needs_key else found  # nobody can show a key here
        except ConureError as error:
            told = {"type": "error", "message": error.message, "hint": error.hint}
        with contextlib.suppress(OSError, RuntimeError):  # it left before it was told, or was told something else
            writer.write(msgspec.json.encode(told) + b"\n")
            await writer.drain()
        writer.close()

    return await serve_tcp_port(TcpPort("status", _error_line), behind.connections, tell, host, port, shared=shared)


def _error_line(message: str, hint: str) -> bytes:
    return msgspec.json.encode({"type": "error", "message": message, "hint": hint}) + b"\n"


def _bare(told: dict[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in BARE}
