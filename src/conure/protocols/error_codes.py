"""Maps each error code to the protocols' status codes: one line for each code of an error and of a failed stream.

A protocol without an equivalent gets the nearest status here, and always our message and hint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from conure.errors import ConureError, Unauthorized
from conure.service.events import Failed

__all__ = [
    "ERROR_CODES",
    "ErrorCode",
    "OpenAIType",
    "error_code_for",
    "error_headers",
    "openai_status_for",
    "retry_after_for",
    "http_status_for",
    "message_with_hint",
]

OpenAIType = Literal[
    "invalid_request_error", "authentication_error", "permission_error", "rate_limit_error", "server_error"
]


@dataclass(frozen=True, slots=True)
class ErrorCode:
    http: int
    close: int
    """Close code of a WebSocket."""
    grpc: str
    """Name of the gRPC status."""
    openai: OpenAIType
    deepgram: str
    """`err_code`; on a WebSocket, the beginning of the close reason."""
    openai_http: int | None = None
    """OpenAI's HTTP status, if it differs. Its clients choose the exception class by it."""


_BAD = ErrorCode(400, 1008, "INVALID_ARGUMENT", "invalid_request_error", "Bad Request")
_AUDIO = ErrorCode(415, 1008, "INVALID_ARGUMENT", "invalid_request_error", "DATA-0000", openai_http=400)
_INTERNAL = ErrorCode(500, 1011, "INTERNAL", "server_error", "INTERNAL_SERVER_ERROR")
_BUSY = ErrorCode(503, 1013, "RESOURCE_EXHAUSTED", "server_error", "SERVICE_UNAVAILABLE")
_STOPPED = ErrorCode(503, 1012, "UNAVAILABLE", "server_error", "SERVICE_UNAVAILABLE")

ERROR_CODES: dict[str, ErrorCode] = {
    "error": _INTERNAL,
    "bad_request": _BAD,
    "bad_message": _BAD,
    "bad_option": _BAD,
    "unsupported_language": _BAD,
    "unknown_model": ErrorCode(404, 1008, "NOT_FOUND", "invalid_request_error", "Bad Request"),
    "unsupported_audio": _AUDIO,
    "no_such_track": _BAD,
    "audio_too_long": ErrorCode(413, 1009, "INVALID_ARGUMENT", "invalid_request_error", "PAYLOAD_TOO_LARGE"),
    "audio_not_found": ErrorCode(404, 1008, "NOT_FOUND", "invalid_request_error", "REMOTE_CONTENT_ERROR"),
    "unauthorized": ErrorCode(401, 1008, "UNAUTHENTICATED", "authentication_error", "INVALID_AUTH"),
    "forbidden": ErrorCode(403, 1008, "PERMISSION_DENIED", "permission_error", "INSUFFICIENT_PERMISSIONS"),
    "too_many": ErrorCode(429, 1013, "RESOURCE_EXHAUSTED", "rate_limit_error", "TOO_MANY_REQUESTS"),
    "busy": _BUSY,
    "storage_full": ErrorCode(507, 1013, "RESOURCE_EXHAUSTED", "server_error", "SERVICE_UNAVAILABLE"),
    "backlog_full": _BUSY,
    "bad_http": _BAD,
    "unknown_path": ErrorCode(404, 1008, "UNIMPLEMENTED", "invalid_request_error", "Not Found"),
    "wrong_method": ErrorCode(405, 1008, "UNIMPLEMENTED", "invalid_request_error", "Method Not Allowed"),
    "request_timeout": ErrorCode(408, 1008, "DEADLINE_EXCEEDED", "invalid_request_error", "REQUEST_TIMEOUT"),
    "address_too_long": ErrorCode(414, 1008, "INVALID_ARGUMENT", "invalid_request_error", "Bad Request"),
    "upgrade_required": ErrorCode(426, 1008, "UNIMPLEMENTED", "invalid_request_error", "Bad Request"),
    "head_too_long": ErrorCode(431, 1008, "INVALID_ARGUMENT", "invalid_request_error", "Bad Request"),
    "http_version": ErrorCode(505, 1011, "UNIMPLEMENTED", "server_error", "Bad Request"),
    "model_error": _INTERNAL,
    "model_not_found": _INTERNAL,
    "bad_checkpoint": _INTERNAL,
    "missing_backend": _INTERNAL,
    "out_of_memory": ErrorCode(507, 1011, "RESOURCE_EXHAUSTED", "server_error", "INTERNAL_SERVER_ERROR"),
    "engine_failed": _INTERNAL,
    "lag_exceeded": ErrorCode(503, 1013, "RESOURCE_EXHAUSTED", "server_error", "NET-0000"),
    "client_too_slow": ErrorCode(408, 1008, "ABORTED", "invalid_request_error", "NET-0000"),
    "idle": ErrorCode(408, 1011, "DEADLINE_EXCEEDED", "invalid_request_error", "NET-0001"),
    "server_stopped": _STOPPED,
    "displaced": ErrorCode(409, 1008, "ABORTED", "invalid_request_error", "Bad Request"),
}


def error_code_for(error: ConureError | Failed | str) -> ErrorCode:
    """The table entry of an error, a `Failed` event or a code."""
    return ERROR_CODES.get(error if isinstance(error, str) else error.code, _INTERNAL)


def http_status_for(error: ConureError | Failed) -> int:
    """Status of an HTTP response."""
    return error_code_for(error).http


def openai_status_for(error: ConureError | Failed) -> int:
    """Status of an HTTP response in OpenAI's API."""
    code = error_code_for(error)
    return code.openai_http or code.http


def retry_after_for(error: ConureError | Failed) -> float | None:
    """Seconds after which a retry may succeed."""
    retry: float | None = getattr(error, "retry_after", None)
    return retry


def error_headers(error: ConureError | Failed) -> dict[str, str]:
    """Headers of an HTTP response."""
    retry = retry_after_for(error)
    headers = {} if retry is None else {"Retry-After": str(max(1, math.ceil(retry)))}
    return headers | ({"WWW-Authenticate": "Bearer"} if error.code == Unauthorized.code else {})


def message_with_hint(error: ConureError | Failed) -> str:
    """Message and hint as one text, for protocols with a single field."""
    return f"{error.message}: {error.hint}" if error.hint else error.message
