"""What of a recording could not be read, in a header of HTTP: for answers that have no field for it."""

from __future__ import annotations

from conure.safe_text import header_text
from conure.types import Transcript

__all__ = ["problems_header"]


def problems_header(transcript: Transcript) -> dict[str, str]:
    """`Conure-Problems`, where there are some."""
    problems = header_text("; ".join(transcript.problems))
    return {"Conure-Problems": problems} if problems else {}
