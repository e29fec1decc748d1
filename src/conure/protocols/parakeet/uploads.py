"""Recordings in a form: `POST /v1/transcribe` (other bodies go to the native protocol) and `/v2/transcribe`.

    /v1  {"text", "segments": [{"text", "start", "end"}]}
    /v2  {"text", "segments": [{"text", "start", "end", "speaker"}], "detected_language"}

Errors are {"detail": "..."}, with status 422 for an invalid field.
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
from conure.protocols.services import Services
from conure.safe_text import header_names
from conure.service.languages import only_language
from conure.types import Transcript

__all__ = ["error_response", "uploads_router"]

Form = Mapping[str, UploadFile | str]
Render = Callable[[Transcript, ModelInfo], dict[str, Any]]

INVALID_FIELD_STATUS = 422
SPEAKER_COUNTS = ("num_speakers", "min_speakers", "max_speakers")
TRUE, FALSE = ("true", "1", "yes", "on", "t", "y"), ("false", "0", "no", "off", "f", "n")
FORM_SCHEMA = {
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


class DetailError(BaseModel):
    detail: str


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": DetailError, "description": "The request is invalid; 422 for an invalid field."},
    "5XX": {"model": DetailError, "description": "At capacity, with `Retry-After`; or an internal error."},
}


class _FormRoute(APIRoute):
    """Matches form bodies only; other bodies go to the next route with this path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        is_form = media_type(Headers(scope=scope)) == MULTIPART
        return super().matches(scope) if is_form else (Match.NONE, {})


def uploads_router(services: Services) -> APIRouter:
    router, forms = APIRouter(), APIRouter(route_class=_FormRoute)

    async def respond(request: Request, render: Render) -> Response:
        try:
            caller = services.access.identify(read_credential(request.headers, request.query_params))
            model = services.live.models.find_file_model(None)
            async with services.uploads.receive_form(request) as form:
                ignored, file = _ignored_speaker_fields(form), _uploaded_file(form)
                transcription = services.files.transcribe(file.file, model, None, caller)
                transcript = await cancel_on_disconnect(request, transcription)
        except ConureError as error:
            return error_response(error)
        headers = ({"Conure-Ignored": header_names(ignored)} if ignored else {}) | problems_header(transcript)
        return JSONResponse(render(transcript, model), headers=headers)

    @forms.post("/v1/transcribe", response_model=None, include_in_schema=False)
    async def form_to_segments(request: Request) -> Response:
        """Any audio or video container, as `file`."""
        return await respond(request, _segments)

    @router.post("/v2/transcribe", response_model=None, responses=ERROR_RESPONSES, openapi_extra=FORM_SCHEMA)
    async def form_to_speakers(request: Request) -> Response:
        """Like `/v1/transcribe`, with a speaker field per segment, which is always null."""
        return await respond(request, _speakers)

    router.include_router(forms)
    return router


def _uploaded_file(form: Form) -> UploadFile:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise BadOption("the form has no file", "send the recording as `file`")
    return file


def _ignored_speaker_fields(form: Form) -> list[str]:
    """Returns the names of requested features without effect. Raises BadOption for invalid values."""
    is_diarization_requested = _parse_flag(form, "diarize")
    counts = {name: count for name in SPEAKER_COUNTS if (count := _parse_count(form, name)) is not None}
    min_speakers, max_speakers = counts.get("min_speakers"), counts.get("max_speakers")
    if "num_speakers" in counts and len(counts) > 1:
        raise BadOption("num_speakers cannot be combined with min_speakers or max_speakers")
    if min_speakers is not None and max_speakers is not None and min_speakers > max_speakers:
        raise BadOption(f"min_speakers ({min_speakers}) cannot exceed max_speakers ({max_speakers})")
    return (["diarize"] if is_diarization_requested else []) + list(counts)


def _parse_flag(form: Form, name: str) -> bool:
    value = form.get(name, "false")
    if not isinstance(value, str) or value.lower() not in TRUE + FALSE:
        raise BadOption(f"{name} is {value!r}", "send true or false")
    return value.lower() in TRUE


def _parse_count(form: Form, name: str) -> int | None:
    value = form.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10 and int(value) > 0:
        return int(value)
    raise BadOption(f"{name} is {value!r}", "send an integer greater than 0")


def _segments(transcript: Transcript, model: ModelInfo) -> dict[str, Any]:
    segments = [{"text": segment.text, "start": segment.start, "end": segment.end} for segment in transcript.segments]
    return {"text": transcript.text, "segments": segments}


def _speakers(transcript: Transcript, model: ModelInfo) -> dict[str, Any]:
    body = _segments(transcript, model)
    segments = [segment | {"speaker": None} for segment in body["segments"]]
    language = transcript.language or only_language(model.languages)
    return body | {"segments": segments, "detected_language": language}


def error_response(error: ConureError) -> JSONResponse:
    retry_after = retry_after_for(error)
    status = INVALID_FIELD_STATUS if isinstance(error, BadOption) else http_status_for(error)
    headers = {} if retry_after is None else {"Retry-After": str(round(retry_after))}
    return JSONResponse({"detail": message_with_hint(error)}, status_code=status, headers=headers)
