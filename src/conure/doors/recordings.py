"""Recordings to transcripts: `POST /v1/transcribe?model=&language=` with the bytes of the file as the body."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from conure.doors.answers import ANY_RECORDING, REFUSALS, Transcription
from conure.doors.behind import Behind
from conure.doors.credentials import secret_of
from conure.doors.progress import ProgressStream
from conure.doors.refusing import refused
from conure.doors.uploads import while_there
from conure.errors import ConureError
from conure.text.fields import as_dict

__all__ = ["recordings"]


def recordings(behind: Behind) -> APIRouter:
    router, models = APIRouter(), behind.live.models

    answers = {200: {"model": Transcription}} | REFUSALS

    @router.post("/v1/transcribe", response_model=None, responses=answers, openapi_extra=ANY_RECORDING)
    async def transcribe(
        request: Request, model: str | None = None, language: str | None = None, stream: bool = False
    ) -> Response:
        """Any container of sound or video; answers when all of it is transcribed.

        With `stream` lines of JSON tell how far that is, and the last one is the transcript.
        """
        async with AsyncExitStack() as held:
            try:
                caller = behind.access.identify(secret_of(request.headers, request.query_params))
                card = models.clips(model)
                file = await held.enter_async_context(behind.uploads.received(request))
                if stream:
                    work = partial(behind.files.transcribe, file, card, language, caller, None)
                    return ProgressStream(held.pop_all(), work)
                found = await while_there(request, behind.files.transcribe(file, card, language, caller))
            except ConureError as error:
                return refused(error)
            return JSONResponse(as_dict(found) | {"problems": list(found.problems)})

    return router
