"""What the native door and the server's own pages answer over HTTP, as the OpenAPI document has it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["ANY_RECORDING", "Health", "REFUSALS", "Readiness", "Transcription"]


class Response(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class SpokenWord(Response):
    text: str
    start: float | None
    """Seconds."""
    end: float | None
    confidence: float | None
    """0 to 1, where the model tells."""


class SpokenSegment(Response):
    text: str
    start: float | None
    end: float | None
    words: list[SpokenWord]


class Transcription(Response):
    text: str
    language: str | None
    """That was asked for, or that the model detected."""
    duration: float
    """Seconds that were transcribed."""
    model: str
    segments: list[SpokenSegment]
    problems: list[str]
    """What of the recording could not be read."""


class ErrorBody(Response):
    code: str
    message: str
    """Names what is wrong."""
    hint: str | None
    """How to mend it."""
    retry_after: float | None
    """Seconds after which the same may go well."""


class Refusal(Response):
    error: ErrorBody


class ModelStatus(Response):
    name: str
    live: bool
    """It follows live audio."""
    clips: bool
    """It transcribes recordings."""
    runner: str
    languages: list[str]
    streams: dict[str, int]
    """How many there may be at each latency, in milliseconds."""


class Health(Response):
    status: Literal["ready", "draining", "restarting"]
    ready: bool
    streams: int
    """Live streams that are open."""
    uptime_seconds: float
    engine_restarts: int
    processes: dict[str, int | list[int]]
    """Their ids."""
    memory: dict[str, int]
    """Bytes that each has, shared ones counted in each."""
    models: list[ModelStatus]


class Bare(Response):
    """Who has no key, where one is needed, is told no more."""

    status: Literal["ready", "draining", "restarting"]
    ready: bool


class Readiness(Response):
    ready: bool


REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Refusal, "description": "What is wrong, and how to mend it."},
    "5XX": {"model": Refusal, "description": "There is no room for it now, with `Retry-After`; or our fault."},
}
ANY_RECORDING: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The bytes of a file with sound: any container that FFmpeg reads, of any content type.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
