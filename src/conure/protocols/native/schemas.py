"""Schemas of the native protocol's HTTP responses, for the OpenAPI document."""

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
    """From 0 to 1; null if the model does not provide it."""


class SpokenSegment(Response):
    text: str
    start: float | None
    end: float | None
    words: list[SpokenWord]


class Transcription(Response):
    text: str
    language: str | None
    """Requested, or detected by the model."""
    duration: float
    """Transcribed seconds."""
    model: str
    segments: list[SpokenSegment]
    problems: list[str]
    """Parts of the recording that could not be read."""


class ErrorBody(Response):
    code: str
    message: str
    """Describes the error and names the offending value."""
    hint: str | None
    """How to fix it."""
    retry_after: float | None
    """Seconds after which a retry may succeed."""


class Refusal(Response):
    error: ErrorBody


class ModelStatus(Response):
    name: str
    live: bool
    """Whether it transcribes live audio."""
    clips: bool
    """Whether it transcribes recordings."""
    runner: str
    languages: list[str]
    streams: dict[str, int]
    """Maximum number of streams by latency in milliseconds."""


class Health(Response):
    status: Literal["ready", "draining", "restarting"]
    ready: bool
    streams: int
    """Open live streams."""
    uptime_seconds: float
    engine_restarts: int
    processes: dict[str, int | list[int]]
    """Process ids by role."""
    memory: dict[str, int]
    """Resident bytes by process; shared memory is counted in each process."""
    models: list[ModelStatus]


class Bare(Response):
    """The response for clients without a key, if the server requires keys."""

    status: Literal["ready", "draining", "restarting"]
    ready: bool


class Readiness(Response):
    ready: bool


REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Refusal, "description": "The request is invalid or not allowed; the body gives reason and hint."},
    "5XX": {"model": Refusal, "description": "The server is at capacity (with `Retry-After`), or an internal error."},
}
ANY_RECORDING: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An audio or video file in any container that FFmpeg reads; the content type is ignored.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
