"""Recordings to transcripts: `POST /v1/transcribe?model=&language=&name=` with the bytes of the file as the body."""

from __future__ import annotations

import tempfile
from typing import BinaryIO, cast

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from conure.doors.failures import status_of
from conure.errors import AudioTooLong, ConureError
from conure.service.files import FileService
from conure.service.models import Models
from conure.text.fields import as_dict

__all__ = ["recordings"]

IN_MEMORY = 2**24
"""Bytes of a recording from which on it is kept on disk while it is transcribed."""


def recordings(files: FileService, models: Models, most_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/transcribe")
    async def transcribe(
        request: Request, model: str | None = None, language: str | None = None, name: str = "the recording"
    ) -> JSONResponse:
        """Any container of sound or video; answers when all of it is transcribed."""
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as file:
            try:
                await _receive(request, cast(BinaryIO, file), most_bytes)
                found = await files.transcribe(cast(BinaryIO, file), name, models.clips(model), language)
            except ConureError as error:
                return _refused(error)
            return JSONResponse(as_dict(found) | {"problems": list(found.problems)})

    return router


async def _receive(request: Request, file: BinaryIO, most_bytes: int) -> None:
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most_bytes:
            raise AudioTooLong(f"the recording has more than {most_bytes} bytes", "cut it, or raise max_upload_mb")
        file.write(part)
    file.seek(0)


def _refused(error: ConureError) -> JSONResponse:
    retry = getattr(error, "retry_after", None)
    fields = {"code": error.code, "message": error.message, "hint": error.hint, "retry_after": retry}
    headers = {} if retry is None else {"Retry-After": str(round(retry))}
    return JSONResponse({"error": fields}, status_code=status_of(error), headers=headers)
