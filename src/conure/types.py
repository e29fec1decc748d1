"""What a transcription is made of, and by what. Times are seconds from the start of the whole recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["RunnerChoice", "Segment", "Token", "Transcript", "Word"]


RunnerChoice = Literal["auto", "torch", "onnx-int8", "onnx-fp32"]
"""What runs a network."""


@dataclass(frozen=True, slots=True)
class Token:
    """One emitted token. Null fields are what the decoder does not know."""

    id: int
    start: float
    """Seconds at which the encoder step that emitted it begins."""
    end: float
    log_probability: float | None = None
    """Natural logarithm of the token's probability among all tokens at its step."""
    confidence: float | None = None
    """In [0, 1]; entropy-based, see `decoding.confidence`."""


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    start: float | None = None
    end: float | None = None
    confidence: float | None = None
    tokens: tuple[Token, ...] = field(default=(), compare=False, repr=False)
    """What it was made of, where that is known."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence, or what lies between two long pauses."""

    text: str
    start: float | None = None
    end: float | None = None
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    text: str
    duration: float
    """Length of the recording in seconds, measured while decoding it."""
    language: str | None = None
    """The language asked for or detected; None when the model does not tell."""
    model: str | None = None
    channel: int | None = None
    """Set when the channels of a recording were transcribed apart."""
    segments: tuple[Segment, ...] = field(default=())
    problems: tuple[str, ...] = ()
    """What of the recording could not be read, a line each: a truncated file gives what it still holds."""

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for segment in self.segments for word in segment.words)
