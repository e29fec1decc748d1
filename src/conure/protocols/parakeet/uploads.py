"""Recordings in a form: `POST /v1/transcribe`, which the native door has for what is no form, and `/v2/transcribe`.

    /v1  {"text", "segments": [{"text", "start", "end"}]}
    /v2  {"text", "segments": [{"text", "start", "end", "speaker"}], "detected_language"}

Errors are {"detail": "..."}, with 422 for a field that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.datastructures import Headers, UploadFile
from starlette.routing import Match
from starlette.types import Scope

from conure.engine.plan import ModelInfo
from conure.errors import BadOption, ConureError
from conure.protocols.error_codes import http_status_for, message_with_hint, retry_after_for
from conure.protocols.http.credentials import read_credential
from conure.protocols.http.media_type import MULTIPART_FORM as MULTIPART
from conure.protocols.http.media_type import media_type
from conure.protocols.http.problems_header import problems_header
from conure.protocols.http.uploads import cancel_on_disconnect
from conure.protocols.parakeet.speakers import ignored_speaker_fields
from conure.protocols.services import Services
from conure.safe_text import header_names
from conure.service.languages import only_language
from conure.types import Transcript

__all__ = ["error_response", "uploads_router"]

Render = Callable[[Transcript, ModelInfo], dict[str, Any]]

WRONG_FIELD = 422
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "diarize": {"type": "boolean", "default": True},
                        "num_speakers": {"type": "integer", "minimum": 1},
                        "min_speakers": {"type": "integer", "minimum": 1},
                        "max_speakers": {"type": "integer", "minimum": 1},
                    },
                }
            }
        },
    }
}


class Refusal(BaseModel):
    detail: str


MISTAKES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Refusal, "description": "What is wrong, and how to mend it; 422 for a field."},
    "5XX": {"model": Refusal, "description": "No room for it now, with `Retry-After`; or our fault."},
}


class _FormRoute(APIRoute):
    """Leaves what is no form to whoever else has the path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        is_form = media_type(Headers(scope=scope)) == MULTIPART
        return super().matches(scope) if is_form else (Match.NONE, {})


def uploads_router(behind: Services) -> APIRouter:
    router, forms = APIRouter(), APIRouter(route_class=_FormRoute)

    async def answer(request: Request, render: Render) -> Response:
        try:
            caller = behind.access.identify(read_credential(request.headers, request.query_params))
            card = behind.live.models.find_file_model(None)
            async with behind.uploads.receive_form(request) as form:
                ignored, file = ignored_speaker_fields(form), _file_of(form)
                work = behind.files.transcribe(file.file, card, None, caller)
                transcript = await cancel_on_disconnect(request, work)
        except ConureError as error:
            return error_response(error)
        headers = ({"Conure-Ignored": header_names(ignored)} if ignored else {}) | problems_header(transcript)
        return JSONResponse(render(transcript, card), headers=headers)

    @forms.post("/v1/transcribe", response_model=None, include_in_schema=False)
    async def form_to_segments(request: Request) -> Response:
        """Any container of sound or video, as `file`."""
        return await answer(request, _segments)

    @router.post("/v2/transcribe", response_model=None, responses=MISTAKES, openapi_extra=FORM)
    async def form_to_speakers(request: Request) -> Response:
        """The same with room for speakers, who are not told apart yet."""
        return await answer(request, _speakers)

    router.include_router(forms)
    return router


def _file_of(form: Mapping[str, UploadFile | str]) -> UploadFile:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise BadOption("the form has no file", "send the recording as `file`")
    return file


def _segments(transcript: Transcript, card: ModelInfo) -> dict[str, Any]:
    segments = [{"text": found.text, "start": found.start, "end": found.end} for found in transcript.segments]
    return {"text": transcript.text, "segments": segments}


def _speakers(transcript: Transcript, card: ModelInfo) -> dict[str, Any]:
    plain = _segments(transcript, card)
    segments = [segment | {"speaker": None} for segment in plain["segments"]]
    language = transcript.language or only_language(card.languages)
    return plain | {"segments": segments, "detected_language": language}


def error_response(error: ConureError) -> JSONResponse:
    retry = retry_after_for(error)
    status = WRONG_FIELD if isinstance(error, BadOption) else http_status_for(error)
    headers = {} if retry is None else {"Retry-After": str(round(retry))}
    return JSONResponse({"detail": message_with_hint(error)}, status_code=status, headers=headers)
