"""Mistakes in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from conure.errors import BadOption, ConureError, EngineFailed
from conure.protocols.error_codes import error_code_for, message_with_hint, openai_status_for, retry_after_for
from conure.protocols.openai.schemas import ErrorAnswer, ErrorObject

__all__ = ["BadField", "OpenAIErrorRoute", "error_body", "error_response"]

log = logging.getLogger(__name__)

CODES = {
    "unknown_model": "model_not_found",
    "unauthorized": "invalid_api_key",
    "too_many": "rate_limit_exceeded",
    "unknown_path": "unknown_url",
    "wrong_method": "method_not_supported",
}
"""Codes that OpenAI has for what we call otherwise."""
FIELDS = {
    "unknown_model": "model",
    "unsupported_language": "language",
    "unsupported_audio": "file",
    "audio_too_long": "file",
}
"""Which field is wrong, where the code tells."""


class BadField(BadOption):
    """A field of the form does not take this value."""

    def __init__(self, field: str, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.field = field


class OpenAIErrorRoute(APIRoute):
    """A route whose every mistake is told in OpenAI's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except ConureError as error:
                return error_response(error)
            except ClientDisconnect:
                raise
            except Exception:
                log.exception("%s %s failed", request.method, request.url.path)
                return error_response(EngineFailed("the server made a mistake", "its log tells which"))

        return handled


def error_response(error: ConureError) -> Response:
    """What is answered to a mistake that we know."""
    retry = retry_after_for(error)
    headers = {} if retry is None else {"Retry-After": str(max(1, math.ceil(retry)))}
    return _response(openai_status_for(error), error_body(error), headers)


def error_body(error: ConureError) -> ErrorAnswer:
    param = error.field if isinstance(error, BadField) else FIELDS.get(error.code)
    kind, code = error_code_for(error).openai, CODES.get(error.code, error.code)
    return ErrorAnswer(error=ErrorObject(message=message_with_hint(error), type=kind, param=param, code=code))


def _response(status: int, said: ErrorAnswer, headers: dict[str, str]) -> Response:
    return Response(said.model_dump_json(), status, headers, media_type="application/json")
