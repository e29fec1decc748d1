"""Recordings to transcripts: `POST /v1/transcribe?model=&language=` with the bytes of the file as the body."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from typing import Any, BinaryIO, cast

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from conure.doors.failures import status_of
from conure.errors import AudioTooLong, ConureError
from conure.service.files import FileService
from conure.service.models import Models
from conure.text.fields import as_dict
from conure.types import Transcript

__all__ = ["recordings"]

IN_MEMORY = 2**24
"""Bytes of a recording from which on it is kept on disk while it is transcribed."""
CLIENT_GONE = 499
"""Nobody reads it; it is for the log."""


def recordings(files: FileService, models: Models, most_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/transcribe", response_model=None)
    async def transcribe(request: Request, model: str | None = None, language: str | None = None) -> Response:
        """Any container of sound or video; answers when all of it is transcribed."""
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as file:
            recording = cast(BinaryIO, file)
            try:
                card = models.clips(model)
                await _receive(request, recording, most_bytes)
                found = await _while_there(request, files.transcribe(recording, card, language))
            except ConureError as error:
                return _refused(error)
            except ClientDisconnect:
                return Response(status_code=CLIENT_GONE)
            return JSONResponse(as_dict(found) | {"problems": list(found.problems)})

    return router


async def _receive(request: Request, file: BinaryIO, most_bytes: int) -> None:
    """Raises ClientDisconnect where the body ends too early."""
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most_bytes:
            raise AudioTooLong(f"the recording has more than {most_bytes} bytes", "cut it, or raise max_upload_mb")
        file.write(part)
    file.seek(0)


async def _while_there(request: Request, work: Coroutine[Any, Any, Transcript]) -> Transcript:
    """Gives the work up where the client hangs up, and raises ClientDisconnect."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait([working])
    if working.cancelled():
        raise ClientDisconnect
    return working.result()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refused(error: ConureError) -> JSONResponse:
    retry = getattr(error, "retry_after", None)
    fields = {"code": error.code, "message": error.message, "hint": error.hint, "retry_after": retry}
    headers = {} if retry is None else {"Retry-After": str(round(retry))}
    return JSONResponse({"error": fields}, status_code=status_of(error), headers=headers)
