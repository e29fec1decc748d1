"""Liveness, readiness and metrics: `/health`, `/ready`, `/metrics`, and the status port.

If keys are required, clients without a key see only liveness and readiness.
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

PUBLIC_FIELDS = ("status", "ready")
"""Fields for clients without a key."""


def health(services: Services) -> APIRouter:
    router, status = APIRouter(), services.status
    responses: dict[int | str, Any] = {200: {"model": Health | Bare}, **REFUSALS}

    async def check(secret: str | None) -> None:
        """Raises Unauthorized or Forbidden."""
        await services.access.identify(secret).begin_usage("status")

    @router.get("/health", response_model=None, responses=responses)
    async def get_health(request: Request) -> JSONResponse:
        """Liveness: 200 while the process responds. A key with the scope `status` gets all fields."""
        secret = read_credential(request.headers, request.query_params)
        is_public = secret is None and services.access.needs_key
        try:
            if not is_public:
                await check(secret)
            report = await status.report()
        except ConureError as error:
            return error_response(error)
        return JSONResponse(_public_fields(report) if is_public else report)

    @router.get("/ready", responses={200: {"model": Readiness}, 503: {"model": Readiness}})
    async def get_ready() -> JSONResponse:
        """Readiness: 200 while the server accepts new streams, else 503."""
        return JSONResponse({"ready": status.is_ready}, status_code=200 if status.is_ready else 503)

    @router.get("/metrics", response_class=PlainTextResponse, responses=REFUSALS)
    async def get_metrics(request: Request) -> Response:
        """Metrics in the text format of Prometheus."""
        try:
            await check(read_credential(request.headers, request.query_params))
            text = await status.render_metrics()
        except ConureError as error:
            return error_response(error)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


async def serve_status(services: Services, host: str, port: int, *, shared: bool = False) -> Acceptor:
    """A port that sends the status as one line of JSON and closes the connection. `shared`: by several processes."""

    async def send_status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection) -> None:
        try:
            report = await services.status.report()
            message = {"type": "status", "connected_streams": report["streams"]}
            message |= _public_fields(report) if services.access.needs_key else report  # there is no way to send a key
        except ConureError as error:
            message = {"type": "error", "message": error.message, "hint": error.hint}
        with contextlib.suppress(OSError, RuntimeError):  # the client has closed, or the port has rejected it
            writer.write(msgspec.json.encode(message) + b"\n")
            await writer.drain()
        writer.close()

    return await serve_tcp_port(
        TcpPort("status", _error_line), services.connections, send_status, host, port, shared=shared
    )


def _error_line(message: str, hint: str) -> bytes:
    return msgspec.json.encode({"type": "error", "message": message, "hint": hint}) + b"\n"


def _public_fields(report: dict[str, Any]) -> dict[str, Any]:
    return {name: report[name] for name in PUBLIC_FIELDS}
