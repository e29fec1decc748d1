"""Errors in OpenAI's format: `{"error": {"message", "type", "param", "code"}}`."""

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
from conure.protocols.openai.schemas import ErrorObject, ErrorResponse

__all__ = ["BadField", "OpenAIErrorRoute", "error_body", "error_response"]

log = logging.getLogger(__name__)

CODES = {
    "unknown_model": "model_not_found",
    "unauthorized": "invalid_api_key",
    "too_many": "rate_limit_exceeded",
    "unknown_path": "unknown_url",
    "wrong_method": "method_not_supported",
}
"""OpenAI's codes for errors that have another code in Conure."""
FIELDS = {
    "unknown_model": "model",
    "unsupported_language": "language",
    "unsupported_audio": "file",
    "audio_too_long": "file",
}
"""The field at fault, for codes that determine it."""


class BadField(BadOption):
    """A form field has an invalid value."""

    def __init__(self, field: str, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.field = field


class OpenAIErrorRoute(APIRoute):
    """A route that returns all errors in OpenAI's format."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle_with_errors(request: Request) -> Response:
            try:
                return await handler(request)
            except ConureError as error:
                return error_response(error)
            except ClientDisconnect:
                raise
            except Exception:
                log.exception("%s %s failed", request.method, request.url.path)
                return error_response(EngineFailed("internal server error", "see the server log"))

        return handle_with_errors


def error_response(error: ConureError) -> Response:
    """Builds the HTTP response for an error."""
    retry_after = retry_after_for(error)
    headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
    return _response(openai_status_for(error), error_body(error), headers)


def error_body(error: ConureError) -> ErrorResponse:
    param = error.field if isinstance(error, BadField) else FIELDS.get(error.code)
    type_, code = error_code_for(error).openai, CODES.get(error.code, error.code)
    return ErrorResponse(error=ErrorObject(message=message_with_hint(error), type=type_, param=param, code=code))


def _response(status: int, body: ErrorResponse, headers: dict[str, str]) -> Response:
    return Response(body.model_dump_json(), status, headers, media_type="application/json")
