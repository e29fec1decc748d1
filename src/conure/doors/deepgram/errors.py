"""Refusals as Deepgram's clients read them: a body over HTTP, a reason where a WebSocket is closed."""

from __future__ import annotations

from fastapi.responses import JSONResponse

from conure.doors.failures import failure_of, retry_of, told
from conure.errors import ConureError
from conure.service.events import Failed

__all__ = ["REQUEST_ID", "body", "close_of", "refusal", "status"]

REQUEST_ID = "dg-request-id"
"""A header of every answer."""
BAD_REQUEST = 400
TAKEN_FOR_BAD = (404, 415)
"""An unknown model and bad audio are bad requests to Deepgram, for which its SDK has an exception."""
LONGEST_REASON = 123
"""Bytes of a WebSocket's close reason."""


def status(error: ConureError) -> int:
    """Of HTTP."""
    code = failure_of(error).http
    return BAD_REQUEST if code in TAKEN_FOR_BAD else code


def body(error: ConureError, request_id: str) -> dict[str, str]:
    return {"err_code": failure_of(error).deepgram, "err_msg": told(error), "request_id": request_id}


def refusal(error: ConureError, request_id: str) -> JSONResponse:
    """Also of a WebSocket's handshake."""
    retry = retry_of(error)
    headers = {REQUEST_ID: request_id, "dg-error": _one_line(told(error))}
    if retry is not None:
        headers["Retry-After"] = str(round(retry))
    return JSONResponse(body(error, request_id), status(error), headers)


def close_of(error: ConureError | Failed) -> tuple[int, str]:
    """Code and reason; the reason begins with Deepgram's own code."""
    failure = failure_of(error)
    reason = f"{failure.deepgram}: {told(error)}".encode()
    return failure.close, reason[:LONGEST_REASON].decode(errors="ignore")


def _one_line(text: str) -> str:
    """As a header may have it."""
    return " ".join(text.split()).encode("latin-1", "replace").decode("latin-1")
