"""HTTP error responses of the native protocol."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from conure.errors import ConureError
from conure.protocols.error_codes import error_headers, http_status_for, retry_after_for

__all__ = ["error_fields", "error_response"]


def error_response(error: ConureError) -> JSONResponse:
    return JSONResponse(
        {"error": error_fields(error)}, status_code=http_status_for(error), headers=error_headers(error)
    )


def error_fields(error: ConureError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "hint": error.hint, "retry_after": retry_after_for(error)}
