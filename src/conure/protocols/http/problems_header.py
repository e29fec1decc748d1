"""Problems of a recording as an HTTP header, for response formats that have no field for them."""

from __future__ import annotations

from conure.safe_text import header_text
from conure.types import Transcript

__all__ = ["problems_header"]


def problems_header(transcript: Transcript) -> dict[str, str]:
    """`Conure-Problems`, if there are any."""
    problems = header_text("; ".join(transcript.problems))
    return {"Conure-Problems": problems} if problems else {}
