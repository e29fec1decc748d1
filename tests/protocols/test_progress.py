"""Progress lines of a transcription, with a fake that fails on command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest

from conure.errors import ConureError, UnsupportedAudio
from conure.protocols.native.progress_stream import ProgressStream
from conure.service.file_service import Progress
from conure.types import Transcript

Transcribe = Callable[[Progress], Any]


def run(transcribe: Transcribe) -> tuple[int, list[dict[str, Any]]]:
    closed = []

    async def ask() -> httpx2.Response:
        held = AsyncExitStack()
        held.callback(closed.append, True)
        transport = httpx2.ASGITransport(app=ProgressStream(held, transcribe))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/")

    answer = asyncio.run(ask())
    assert closed == [True]
    return answer.status_code, [json.loads(line) for line in answer.text.splitlines()]


def transcription(*progress_values: float, error: Exception | None = None) -> Transcribe:
    async def transcribe(progress: Progress) -> Transcript:
        for seconds in progress_values:
            progress(seconds, None)
            await asyncio.sleep(0.01)
        if error:
            raise error
        return Transcript(text="one", duration=3.0)

    return transcribe


def test_progress_then_transcript() -> None:
    status, lines = run(transcription(1.0, 2.0))
    assert status == 200
    assert lines[:-1] == [{"type": "progress", "seconds": seconds, "of": None} for seconds in (1.0, 2.0)]
    assert (lines[-1]["type"], lines[-1]["text"], lines[-1]["problems"]) == ("transcript", "one", [])


@pytest.mark.parametrize(
    ("error", "code"),
    [(UnsupportedAudio("no audio"), "unsupported_audio"), (RuntimeError("secret"), "engine_failed")],
)
def test_later_error_is_the_last_line(error: Exception, code: str, caplog: pytest.LogCaptureFixture) -> None:
    status, lines = run(transcription(1.0, error=error))
    assert status == 200
    assert [line["type"] for line in lines] == ["progress", "error"]
    assert lines[-1]["code"] == code
    assert "secret" not in lines[-1]["message"]
    assert ("secret" in caplog.text) is not isinstance(error, ConureError)


def test_early_error_has_an_http_status() -> None:
    status, (line,) = run(transcription(error=UnsupportedAudio("no audio")))
    assert (status, line["error"]["code"]) == (415, "unsupported_audio")
