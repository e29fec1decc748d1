"""Our errors as protocols have them."""

from __future__ import annotations

from conure.errors import (
    AudioTooLong,
    BadRequest,
    Busy,
    ConureError,
    UnknownModel,
    UnsupportedAudio,
)

__all__ = ["status_of"]

STATUS: tuple[tuple[type[ConureError], int], ...] = (
    (AudioTooLong, 413),
    (UnsupportedAudio, 415),
    (UnknownModel, 404),
    (BadRequest, 400),
    (Busy, 503),
)
"""The first that fits."""


def status_of(error: ConureError) -> int:
    """Of HTTP."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)
