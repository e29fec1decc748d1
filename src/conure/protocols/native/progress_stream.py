"""Streams the progress of a transcription as lines of JSON; the last line is the transcript or an error.

{"type": "progress", "seconds": 61.2, "of": 180.0}      `of`: duration in the recording's header, or null
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
from conure.protocols.native.errors import error_fields, error_response
from conure.protocols.transcription_progress import TranscriptionProgress
from conure.service.file_service import Progress
from conure.text.transcript_json import transcript_fields
from conure.types import Transcript

__all__ = ["ProgressStream"]

Transcribe = Callable[[Progress], Coroutine[Any, Any, Transcript]]


class ProgressStream(StreamedResponse):
    media_type = "application/x-ndjson"

    def __init__(self, resources: AsyncExitStack, transcribe: Transcribe) -> None:
        super().__init__(resources)
        self._transcribe = transcribe

    async def body_parts(self) -> AsyncGenerator[bytes, None]:
        progress: TranscriptionProgress[tuple[float, float | None]] = TranscriptionProgress(
            lambda report: self._transcribe(lambda seconds, of: report((seconds, of)))
        )
        try:
            while (updates := await progress.next_updates()) is not None:
                for seconds, of in updates[-1:]:  # only the latest is of interest
                    yield _line({"type": "progress", "seconds": round(seconds, 3), "of": of})
            transcript = progress.transcript()
            yield _line({"type": "transcript"} | transcript_fields(transcript))
        finally:
            await progress.close()

    def error_response(self, error: ConureError) -> Response:
        return error_response(error)

    def error_part(self, error: ConureError) -> bytes:
        return _line({"type": "error"} | error_fields(error))


def _line(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message) + b"\n"
