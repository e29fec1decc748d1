"""Refusals as Deepgram's clients read them: a body over HTTP, a reason where a WebSocket is closed."""

from __future__ import annotations

from fastapi.responses import JSONResponse

from conure.errors import ConureError
from conure.protocols.error_codes import error_code_for, message_with_hint, retry_after_for
from conure.safe_text import close_reason, header_text
from conure.service.events import Failed

__all__ = ["ERROR_HEADER", "REQUEST_ID", "body", "close_code_and_reason", "error_response", "status"]

REQUEST_ID = "dg-request-id"
"""A header of every answer."""
BAD_REQUEST = 400
TAKEN_FOR_BAD = (404, 415)
"""An unknown model and bad audio are bad requests to Deepgram, for which its SDK has an exception."""
NO_PATH = "unknown_path"
ERROR_HEADER = "dg-error"
"""A header of refusals: the message, percent-encoded where it is not plain ASCII."""


def status(error: ConureError) -> int:
    """Of HTTP."""
    code = error_code_for(error).http
    return BAD_REQUEST if code in TAKEN_FOR_BAD and error.code != NO_PATH else code


def body(error: ConureError, request_id: str) -> dict[str, str]:
    return {"err_code": error_code_for(error).deepgram, "err_msg": message_with_hint(error), "request_id": request_id}


def error_response(error: ConureError, request_id: str) -> JSONResponse:
    """Also of a WebSocket's handshake."""
    retry = retry_after_for(error)
    headers = {REQUEST_ID: request_id, ERROR_HEADER: header_text(message_with_hint(error))}
    if retry is not None:
        headers["Retry-After"] = str(round(retry))
    return JSONResponse(body(error, request_id), status(error), headers)


def close_code_and_reason(error: ConureError | Failed) -> tuple[int, str]:
    """Code and reason; the reason begins with Deepgram's own code."""
    failure = error_code_for(error)
    return failure.close, close_reason(f"{failure.deepgram}: {message_with_hint(error)}")
