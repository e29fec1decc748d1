"""Is the server alive, does it take streams, what does it measure: `/health`, `/ready`, `/metrics`, `/status`."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from conure.service.status import Status

__all__ = ["health", "serve_status"]


def health(status: Status) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    async def alive() -> JSONResponse:
        """The process answers; 200 while it does."""
        return JSONResponse(await status.tell())

    @router.get("/ready")
    async def ready() -> JSONResponse:
        """200 while new streams are taken, else 503."""
        return JSONResponse({"ready": status.is_ready}, status_code=200 if status.is_ready else 503)

    @router.get("/metrics")
    async def measured() -> Response:
        """For Prometheus."""
        return Response(await status.measured(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


async def serve_status(status: Status, host: str, port: int, *, shared: bool = False) -> asyncio.Server:
    """A port that says how the server is, in one line of JSON, and hangs up. Several processes may share it."""

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told = await status.tell()
        with contextlib.suppress(OSError):  # it left before it was told
            writer.write(msgspec.json.encode({"type": "status", "connected_streams": told["streams"]} | told) + b"\n")
            await writer.drain()
        writer.close()

    return await asyncio.start_server(tell, host, port, reuse_port=shared or None)
