"""What of a recording could not be read, in a header of HTTP: for answers that have no field for it."""

from __future__ import annotations

from urllib.parse import quote

from conure.types import Transcript

__all__ = ["problems_header"]

READABLE = " ,.:;()"
"""Left as they are in a header."""


def problems_header(transcript: Transcript) -> dict[str, str]:
    """`Conure-Problems`, where there are some."""
    problems = quote("; ".join(transcript.problems), safe=READABLE)
    return {"Conure-Problems": problems} if problems else {}
