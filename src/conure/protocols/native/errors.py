"""An error as the native doors answer it over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from conure.errors import ConureError
from conure.protocols.error_codes import headers_of, retry_of, status_of

__all__ = ["fields_of", "refused"]


def refused(error: ConureError) -> JSONResponse:
    return JSONResponse({"error": fields_of(error)}, status_code=status_of(error), headers=headers_of(error))


def fields_of(error: ConureError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "hint": error.hint, "retry_after": retry_of(error)}
