"""How far a transcription is, while it is made: lines of JSON, the last of them the transcript or why there is none.

{"type": "progress", "seconds": 61.2, "of": 180.0}      `of`: as the recording tells it, or null
{"type": "transcript", "text": ..., as without `stream`}
{"type": "error", "code", "message", "hint", "retry_after"}
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import msgspec
from fastapi.responses import Response

from conure.errors import ConureError
from conure.protocols.http.streamed_response import StreamedResponse
from conure.protocols.native.errors import fields_of, refused
from conure.protocols.transcription_progress import TranscriptionProgress
from conure.service.file_service import Progress
from conure.text.transcript_json import as_dict
from conure.types import Transcript

__all__ = ["ProgressStream"]

Transcribe = Callable[[Progress], Coroutine[Any, Any, Transcript]]


class ProgressStream(StreamedResponse):
    media_type = "application/x-ndjson"

    def __init__(self, held: AsyncExitStack, transcribe: Transcribe) -> None:
        super().__init__(held)
        self._transcribe = transcribe

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        making: TranscriptionProgress[tuple[float, float | None]] = TranscriptionProgress(
            lambda take: self._transcribe(lambda seconds, of: take((seconds, of)))
        )
        try:
            while (news := await making.news()) is not None:
                for seconds, of in news[-1:]:  # what was before is known by it
                    yield _line({"type": "progress", "seconds": round(seconds, 3), "of": of})
            found = making.transcript()
            yield _line({"type": "transcript"} | as_dict(found))
        finally:
            await making.close()

    def refused(self, error: ConureError) -> Response:
        return refused(error)

    def broken(self, error: ConureError) -> bytes:
        return _line({"type": "error"} | fields_of(error))


def _line(said: dict[str, Any]) -> bytes:
    return msgspec.json.encode(said) + b"\n"
