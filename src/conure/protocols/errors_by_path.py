"""A mistake in the form of the protocol that a path belongs to, also where no door has the path.

Below a vendor's prefix its clients read errors in its form alone; everything else is answered as our own protocol does.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from fastapi.responses import Response

from conure.errors import ConureError
from conure.protocols.deepgram.errors import error_response as deepgram_refusal
from conure.protocols.native.errors import error_response
from conure.protocols.openai.errors import error_response as openai_refused
from conure.protocols.parakeet.uploads import error_response as parakeet_refused

__all__ = ["error_response_for_path"]


def _deepgram(error: ConureError) -> Response:
    return deepgram_refusal(error, str(uuid.uuid4()))


FORMS: dict[str, Callable[[ConureError], Response]] = {
    **dict.fromkeys(("/v1/stream", "/v1/transcribe"), error_response),
    **dict.fromkeys(("/v1/listen", "/v2/listen", "/v1/speak", "/v1/read", "/v1/projects", "/v1/auth"), _deepgram),
    **dict.fromkeys(("/v2", "/v3"), parakeet_refused),
    "/v1": openai_refused,
}
"""By the beginning of a path; the longest that fits counts."""


def error_response_for_path(path: str, error: ConureError) -> Response:
    parts = path.lower().rstrip("/").split("/")
    for size in range(len(parts), 0, -1):
        if form := FORMS.get("/".join(parts[:size])):
            return form(error)
    return error_response(error)
