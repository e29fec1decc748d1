"""Refusals as Deepgram's clients read them: a body over HTTP, a reason where a WebSocket is closed."""

from __future__ import annotations

from fastapi.responses import JSONResponse

from conure.errors import ConureError
from conure.protocols.error_codes import failure_of, retry_of, told
from conure.safe_text import close_reason, header_text
from conure.service.events import Failed

__all__ = ["FAULT", "REQUEST_ID", "body", "close_of", "refusal", "status"]

REQUEST_ID = "dg-request-id"
"""A header of every answer."""
BAD_REQUEST = 400
TAKEN_FOR_BAD = (404, 415)
"""An unknown model and bad audio are bad requests to Deepgram, for which its SDK has an exception."""
NO_PATH = "unknown_path"
FAULT = "dg-error"
"""A header of refusals: the message, percent-encoded where it is not plain ASCII."""


def status(error: ConureError) -> int:
    """Of HTTP."""
    code = failure_of(error).http
    return BAD_REQUEST if code in TAKEN_FOR_BAD and error.code != NO_PATH else code


def body(error: ConureError, request_id: str) -> dict[str, str]:
    return {"err_code": failure_of(error).deepgram, "err_msg": told(error), "request_id": request_id}


def refusal(error: ConureError, request_id: str) -> JSONResponse:
    """Also of a WebSocket's handshake."""
    retry = retry_of(error)
    headers = {REQUEST_ID: request_id, FAULT: header_text(told(error))}
    if retry is not None:
        headers["Retry-After"] = str(round(retry))
    return JSONResponse(body(error, request_id), status(error), headers)


def close_of(error: ConureError | Failed) -> tuple[int, str]:
    """Code and reason; the reason begins with Deepgram's own code."""
    failure = failure_of(error)
    return failure.close, close_reason(f"{failure.deepgram}: {told(error)}")
