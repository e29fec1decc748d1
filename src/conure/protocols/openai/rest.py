"""OpenAI's REST interface: `/v1/audio/transcriptions`, `/v1/audio/translations`, `/v1/models`."""

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
from conure.protocols.openai.models import listed, named
from conure.protocols.openai.request_fields import form_schema
from conure.protocols.openai.schemas import ErrorAnswer, Model, ModelList, Transcription, VerboseTranscription
from conure.protocols.openai.transcription import transcription_form
from conure.protocols.services import Services
from conure.service.access import Caller

__all__ = ["openai_rest"]


class _AnyText(PathConvertor):
    """The rest of a path, line breaks too."""

    regex = "(?s:.*)"


register_url_convertor("anything", _AnyText())

TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
MISTAKES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "What is wrong, and with which field."},
    "5XX": {"model": ErrorAnswer, "description": "No room for it now, with `Retry-After`; or our fault."},
}
TEXT = {"schema": {"type": "string"}}
TRANSCRIPTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The transcript in the format that was asked for; `Conure-Ignored` names fields without effect.",
        "model": Transcription | VerboseTranscription,
        "content": {"text/plain": TEXT, "text/vtt": TEXT, "text/event-stream": TEXT},
    }
}


def openai_rest(behind: Services) -> APIRouter:
    router = APIRouter(route_class=OpenAIErrorRoute, tags=["OpenAI"])
    _add_transcriptions(router, behind)
    _add_models(router, behind)

    return router


def _add_transcriptions(router: APIRouter, behind: Services) -> None:
    form = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form_schema()}}}}

    @router.post(TRANSCRIPTIONS, response_model=None, responses=TRANSCRIPTS | MISTAKES, openapi_extra=form)
    async def transcribe(request: Request) -> Response:
        """A recording to its transcript: text, JSON, subtitles, or events as it is made.

        Lists may be written `x`, `x[]`, `x[0]`, repeated, or as JSON.
        """
        caller = _caller(request, behind)
        async with AsyncExitStack() as stack:
            form = await stack.enter_async_context(behind.uploads.receive_form(request))
            wanted = transcription_form(form, behind, caller)
            if wanted.asked.stream:
                return wanted.stream(stack.pop_all())
            return wanted.answer(await cancel_on_disconnect(request, wanted.transcribe()))

    @router.post(TRANSLATIONS, response_model=None, status_code=400, responses=MISTAKES)
    async def translate(request: Request) -> Response:
        """Is refused: no model here translates."""
        _caller(request, behind)
        raise BadOption("no model here translates", f"{TRANSCRIPTIONS} writes down what is said, in its own language")


def _add_models(router: APIRouter, behind: Services) -> None:
    models, created = behind.live.models, int(time.time())
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}

    @router.get("/v1/models", responses=MISTAKES)
    async def all_models(request: Request) -> ModelList:
        """The models of the server, and other names that lead to them."""
        _caller(request, behind)
        return listed(models, created)

    @router.get("/v1/models/{model:anything}", responses=MISTAKES, openapi_extra={"parameters": [name]})
    async def one_model(request: Request) -> Model:
        """What a model can do; any name that is understood will do."""
        _caller(request, behind)
        return named(models, request.path_params["model"], created)


def _caller(request: Request, behind: Services) -> Caller:
    return behind.access.identify(read_credential(request.headers, request.query_params))
