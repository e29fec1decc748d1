"""What OpenAI's clients read, as it goes over the wire. Fields that are null are left out, but those of errors."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from conure.protocols.error_codes import OpenAIType

__all__ = [
    "Delta",
    "Done",
    "ErrorAnswer",
    "ErrorObject",
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
    """The field that is wrong, where it is one."""
    code: str | None


class ErrorAnswer(Schema):
    error: ErrorObject


class Language(Schema):
    code: str
    """ISO 639-1."""


class LogProbability(Schema):
    token: str
    """Its text, with the blank before it; � for a part of a letter."""
    bytes: list[int]
    """Those of all tokens are the bytes of the text."""
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
    """Steps of the encoder."""
    output_tokens: int
    total_tokens: int
    input_token_details: AudioTokens


class Transcription(Schema):
    """`json`."""

    text: str
    languages: list[Language] | None = None
    """Where the language is known."""
    logprobs: list[LogProbability] | None = None
    usage: Seconds
    problems: list[str] | None = None
    """What of the recording could not be read, where there is something."""


class Word(Schema):
    word: str
    start: float
    end: float
    confidence: float | None = None


class Segment(Schema):
    id: int
    seek: int
    """Hundredths of a second at which it begins."""
    start: float
    end: float
    text: str
    """All segments' texts together are the text."""
    tokens: list[int]
    temperature: float = 0.0
    avg_logprob: float | None
    """The mean over its tokens."""
    compression_ratio: float
    no_speech_prob: float = 0.0
    """Is not measured; segments hold words that were heard."""


class VerboseTranscription(Schema):
    """`verbose_json`."""

    task: Literal["transcribe"] = "transcribe"
    language: str
    """In English; empty where it is not known."""
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
    """All deltas together."""
    languages: list[Language] | None = None
    logprobs: list[LogProbability] | None = None
    usage: TokenUsage
    problems: list[str] | None = None


class Model(Schema):
    id: str
    object: Literal["model"] = "model"
    created: int
    """When this server began to serve it."""
    owned_by: str
    root: str
    """The model that answers to this name."""
    languages: list[str]
    abilities: list[str]
    recordings: bool
    live: bool
    latencies_ms: list[int]
    """Of live audio."""


class ModelList(Schema):
    object: Literal["list"] = "list"
    data: list[Model]
