"""OpenAI's response objects in their wire format. Null fields are omitted, except in errors."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from conure.protocols.error_codes import OpenAIType

__all__ = [
    "Delta",
    "Done",
    "ErrorObject",
    "ErrorResponse",
    "Language",
    "LogProbability",
    "Model",
    "ModelList",
    "Seconds",
    "Segment",
    "TokenUsage",
    "Transcription",
    "VerboseTranscription",
    "Word",
]


class Schema(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class ErrorObject(Schema):
    message: str
    type: OpenAIType
    param: str | None
    """The field at fault, if any."""
    code: str | None


class ErrorResponse(Schema):
    error: ErrorObject


class Language(Schema):
    code: str
    """ISO 639-1."""


class LogProbability(Schema):
    token: str
    """Its text with the leading space; � for part of a character."""
    bytes: list[int]
    """The bytes of all tokens together are the bytes of the text."""
    logprob: float | None
    """Natural logarithm."""


class Seconds(Schema):
    type: Literal["duration"] = "duration"
    seconds: float


class AudioTokens(Schema):
    audio_tokens: int
    text_tokens: int = 0


class TokenUsage(Schema):
    type: Literal["tokens"] = "tokens"
    input_tokens: int
    """Encoder frames."""
    output_tokens: int
    total_tokens: int
    input_token_details: AudioTokens


class Transcription(Schema):
    """`json`."""

    text: str
    languages: list[Language] | None = None
    """Given if the language is known."""
    logprobs: list[LogProbability] | None = None
    usage: Seconds
    problems: list[str] | None = None
    """Parts of the recording that could not be read, if any."""


class Word(Schema):
    word: str
    start: float
    end: float
    confidence: float | None = None


class Segment(Schema):
    id: int
    seek: int
    """Start in hundredths of a second."""
    start: float
    end: float
    text: str
    """The texts of all segments together are the text."""
    tokens: list[int]
    temperature: float = 0.0
    avg_logprob: float | None
    """Mean over the tokens of the segment."""
    compression_ratio: float
    no_speech_prob: float = 0.0
    """Always 0: not computed."""


class VerboseTranscription(Schema):
    """`verbose_json`."""

    task: Literal["transcribe"] = "transcribe"
    language: str
    """English name; empty if not known."""
    language_code: str | None = None
    """The same in ISO 639-1."""
    duration: float
    text: str
    words: list[Word] | None = None
    segments: list[Segment] | None = None
    usage: Seconds
    problems: list[str] | None = None


class Delta(Schema):
    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str
    logprobs: list[LogProbability] | None = None


class Done(Schema):
    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    """The concatenated deltas."""
    languages: list[Language] | None = None
    logprobs: list[LogProbability] | None = None
    usage: TokenUsage
    problems: list[str] | None = None


class Model(Schema):
    id: str
    object: Literal["model"] = "model"
    created: int
    """Unix time at which this server began to serve it."""
    owned_by: str
    root: str
    """The model that this name selects."""
    languages: list[str]
    abilities: list[str]
    recordings: bool
    live: bool
    latencies_ms: list[int]
    """Look-aheads available for live audio, in milliseconds."""


class ModelList(Schema):
    object: Literal["list"] = "list"
    data: list[Model]
