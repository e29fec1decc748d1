"""Media type of a request's body."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["MULTIPART_FORM", "JSON", "media_type"]

MULTIPART_FORM, JSON = "multipart/form-data", "application/json"


def media_type(headers: Mapping[str, str]) -> str:
    """In lower case and without parameters; empty if missing. `headers`: with lower-case names, as in Starlette."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()
