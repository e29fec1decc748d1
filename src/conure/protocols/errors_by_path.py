"""Error responses in the format of the protocol that a path belongs to, including paths without a route.

Clients of a vendor only parse the vendor's format, so paths below its prefix use it. All others use the native format.
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


FORMATS: dict[str, Callable[[ConureError], Response]] = {
    **dict.fromkeys(("/v1/stream", "/v1/transcribe"), error_response),
    **dict.fromkeys(("/v1/listen", "/v2/listen", "/v1/speak", "/v1/read", "/v1/projects", "/v1/auth"), _deepgram),
    **dict.fromkeys(("/v2", "/v3"), parakeet_refused),
    "/v1": openai_refused,
}
"""By path prefix; the longest matching prefix wins."""


def error_response_for_path(path: str, error: ConureError) -> Response:
    parts = path.lower().rstrip("/").split("/")
    for size in range(len(parts), 0, -1):
        if render := FORMATS.get("/".join(parts[:size])):
            return render(error)
    return error_response(error)
