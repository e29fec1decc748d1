"""Transcription of recordings: `POST /v1/transcribe?model=&language=&track=` with the bytes of the file as the body."""

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

__all__ = ["transcribe_file"]


def transcribe_file(services: Services) -> APIRouter:
    router, models = APIRouter(), services.live.models

    answers = {200: {"model": Transcription}} | REFUSALS

    @router.post("/v1/transcribe", response_model=None, responses=answers, openapi_extra=ANY_RECORDING)
    async def transcribe(
        request: Request,
        model: str | None = None,
        language: str | None = None,
        stream: bool = False,
        track: Annotated[int | None, Query(ge=1)] = None,
    ) -> Response:
        """Transcribes an audio or video file in any container; responds when all of it is transcribed.

        With `stream`, the response is lines of JSON that report progress; the last one is the transcript. `track` is
        the number of the audio track, from 1; the default is the container's default track among those with sound.
        """
        async with AsyncExitStack() as resources:
            try:
                caller = services.access.identify(read_credential(request.headers, request.query_params))
                model_info = models.find_file_model(model)
                file = await resources.enter_async_context(services.uploads.receive_body(request))
                if stream:
                    work = partial(services.files.transcribe, file, model_info, language, caller, None, track=track)
                    return ProgressStream(resources.pop_all(), work)
                transcript = await cancel_on_disconnect(
                    request, services.files.transcribe(file, model_info, language, caller, track=track)
                )
            except ConureError as error:
                return error_response(error)
            return JSONResponse(transcript_fields(transcript))

    return router
