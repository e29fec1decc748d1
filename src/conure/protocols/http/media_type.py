"""What a request's body is said to be: the type alone, in small letters, for neither case nor parameters change it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["MULTIPART_FORM", "JSON", "media_type"]

MULTIPART_FORM, JSON = "multipart/form-data", "application/json"


def media_type(headers: Mapping[str, str]) -> str:
    """Empty where nothing is said. `headers`: by names in small letters, as Starlette's are."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()
