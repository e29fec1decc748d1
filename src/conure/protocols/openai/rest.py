"""OpenAI's REST endpoints: `/v1/audio/transcriptions`, `/v1/audio/translations`, `/v1/models`."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.convertors import PathConvertor, register_url_convertor

from conure.errors import BadOption
from conure.protocols.http.credentials import read_credential
from conure.protocols.http.uploads import cancel_on_disconnect
from conure.protocols.openai.errors import OpenAIErrorRoute
from conure.protocols.openai.models import describe_model, list_models
from conure.protocols.openai.request_fields import form_schema
from conure.protocols.openai.schemas import ErrorResponse, Model, ModelList, Transcription, VerboseTranscription
from conure.protocols.openai.transcription import parse_transcription
from conure.protocols.services import Services
from conure.service.access import Caller

__all__ = ["openai_rest"]


class _AnyText(PathConvertor):
    """The rest of a path, including line breaks."""

    regex = "(?s:.*)"


register_url_convertor("anything", _AnyText())

TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorResponse, "description": "The request is invalid; `param` names the field."},
    "5XX": {"model": ErrorResponse, "description": "At capacity, with `Retry-After`; or an internal error."},
}
TEXT_CONTENT = {"schema": {"type": "string"}}
TRANSCRIPT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The transcript in the requested format; `Conure-Ignored` lists fields without effect.",
        "model": Transcription | VerboseTranscription,
        "content": {"text/plain": TEXT_CONTENT, "text/vtt": TEXT_CONTENT, "text/event-stream": TEXT_CONTENT},
    }
}


def openai_rest(services: Services) -> APIRouter:
    router = APIRouter(route_class=OpenAIErrorRoute, tags=["OpenAI"])
    _add_transcriptions(router, services)
    _add_models(router, services)

    return router


def _add_transcriptions(router: APIRouter, services: Services) -> None:
    form = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form_schema()}}}}

    @router.post(
        TRANSCRIPTIONS, response_model=None, responses=TRANSCRIPT_RESPONSES | ERROR_RESPONSES, openapi_extra=form
    )
    async def transcribe(request: Request) -> Response:
        """Transcribes a recording: text, JSON, subtitles, or events while it is computed.

        Lists may be written `x`, `x[]`, `x[0]`, repeated, or as JSON.
        """
        caller = _caller(request, services)
        async with AsyncExitStack() as stack:
            form = await stack.enter_async_context(services.uploads.receive_form(request))
            transcription = parse_transcription(form, services, caller)
            if transcription.fields.stream:
                return transcription.stream(stack.pop_all())
            return transcription.render_response(await cancel_on_disconnect(request, transcription.transcribe()))

    @router.post(TRANSLATIONS, response_model=None, status_code=400, responses=ERROR_RESPONSES)
    async def translate(request: Request) -> Response:
        """Rejected: translation is not supported."""
        _caller(request, services)
        raise BadOption("translation is not supported", f"{TRANSCRIPTIONS} transcribes in the spoken language")


def _add_models(router: APIRouter, services: Services) -> None:
    models, created = services.live.models, int(time.time())
    model_parameter = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}

    @router.get("/v1/models", responses=ERROR_RESPONSES)
    async def all_models(request: Request) -> ModelList:
        """Lists the served models and their aliases."""
        _caller(request, services)
        return list_models(models, created)

    @router.get(
        "/v1/models/{model:anything}", responses=ERROR_RESPONSES, openapi_extra={"parameters": [model_parameter]}
    )
    async def one_model(request: Request) -> Model:
        """Describes a model; accepts any name or alias."""
        _caller(request, services)
        return describe_model(models, request.path_params["model"], created)


def _caller(request: Request, services: Services) -> Caller:
    return services.access.identify(read_credential(request.headers, request.query_params))
