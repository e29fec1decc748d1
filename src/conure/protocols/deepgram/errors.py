"""Errors in Deepgram's format: an HTTP response body, or the close reason of a WebSocket."""

from __future__ import annotations

from fastapi.responses import JSONResponse

from conure.errors import ConureError
from conure.protocols.error_codes import error_code_for, message_with_hint, retry_after_for
from conure.safe_text import close_reason, header_text
from conure.service.events import Failed

__all__ = ["ERROR_HEADER", "REQUEST_ID", "error_body", "close_code_and_reason", "error_response", "http_status"]

REQUEST_ID = "dg-request-id"
"""Response header with the request id; present in every response."""
BAD_REQUEST = 400
BAD_REQUEST_STATUSES = (404, 415)
"""Statuses that Deepgram reports as 400 (unknown model, unsupported audio); its SDK has an exception for 400."""
UNKNOWN_PATH = "unknown_path"
ERROR_HEADER = "dg-error"
"""Header of error responses: the message, percent-encoded unless it is plain ASCII."""


def http_status(error: ConureError) -> int:
    """Returns the HTTP status."""
    http_status = error_code_for(error).http
    return BAD_REQUEST if http_status in BAD_REQUEST_STATUSES and error.code != UNKNOWN_PATH else http_status


def error_body(error: ConureError, request_id: str) -> dict[str, str]:
    return {"err_code": error_code_for(error).deepgram, "err_msg": message_with_hint(error), "request_id": request_id}


def error_response(error: ConureError, request_id: str) -> JSONResponse:
    """Builds the HTTP response; also used to reject a WebSocket handshake."""
    retry_after = retry_after_for(error)
    headers = {REQUEST_ID: request_id, ERROR_HEADER: header_text(message_with_hint(error))}
    if retry_after is not None:
        headers["Retry-After"] = str(round(retry_after))
    return JSONResponse(error_body(error, request_id), http_status(error), headers)


def close_code_and_reason(error: ConureError | Failed) -> tuple[int, str]:
    """Returns the close code and the reason, which begins with Deepgram's error code."""
    error_code = error_code_for(error)
    return error_code.close, close_reason(f"{error_code.deepgram}: {message_with_hint(error)}")
