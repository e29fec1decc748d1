"""Recordings to transcripts: `POST /v1/transcribe?model=&language=&track=` with the bytes of the file as the body."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from conure.errors import ConureError
from conure.protocols.http.credentials import read_credential
from conure.protocols.http.uploads import cancel_on_disconnect
from conure.protocols.native.errors import error_response
from conure.protocols.native.progress_stream import ProgressStream
from conure.protocols.native.schemas import ANY_RECORDING, REFUSALS, Transcription
from conure.protocols.services import Services
from conure.text.transcript_json import transcript_fields

__all__ = ["recordings"]


def recordings(behind: Services) -> APIRouter:
    router, models = APIRouter(), behind.live.models

    answers = {200: {"model": Transcription}} | REFUSALS

    @router.post("/v1/transcribe", response_model=None, responses=answers, openapi_extra=ANY_RECORDING)
    async def transcribe(
        request: Request,
        model: str | None = None,
        language: str | None = None,
        stream: bool = False,
        track: Annotated[int | None, Query(ge=1)] = None,
    ) -> Response:
        """Any container of sound or video; answers when all of it is transcribed.

        With `stream` lines of JSON tell how far that is, and the last one is the transcript. `track` chooses among
        several audio tracks, from 1; without it the default one is taken among those with sound.
        """
        async with AsyncExitStack() as held:
            try:
                caller = behind.access.identify(read_credential(request.headers, request.query_params))
                card = models.find_file_model(model)
                file = await held.enter_async_context(behind.uploads.receive_body(request))
                if stream:
                    work = partial(behind.files.transcribe, file, card, language, caller, None, track=track)
                    return ProgressStream(held.pop_all(), work)
                found = await cancel_on_disconnect(
                    request, behind.files.transcribe(file, card, language, caller, track=track)
                )
            except ConureError as error:
                return error_response(error)
            return JSONResponse(transcript_fields(found))

    return router
