"""Transcripts and their parts. Times are in seconds from the start of the recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["RunnerChoice", "Segment", "Token", "Transcript", "Word"]


RunnerChoice = Literal["auto", "torch", "onnx-int8", "onnx-fp32"]
"""How a network is run: in PyTorch, or as a converted model with int8 or float32 weights."""


@dataclass(frozen=True, slots=True)
class Token:
    """One emitted token. Fields are None if the decoder does not provide them."""

    id: int
    start: float
    """Start of the encoder step that emitted the token, in seconds."""
    end: float
    log_probability: float | None = None
    """Natural logarithm of the token's probability among all tokens at its step."""
    confidence: float | None = None
    """In [0, 1], derived from the entropy; see `decoding.confidence`."""


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    start: float | None = None
    end: float | None = None
    confidence: float | None = None
    tokens: tuple[Token, ...] = field(default=(), compare=False, repr=False)
    """The tokens of the word; empty if unknown."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence, or the words between two long pauses."""

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
    """The requested or detected language; None if the model does not report one."""
    model: str | None = None
    channel: int | None = None
    """Set if the channels of the recording were transcribed separately."""
    segments: tuple[Segment, ...] = field(default=())
    problems: tuple[str, ...] = ()
    """One line for each part of the recording that could not be read; the rest of a damaged file is transcribed."""

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for segment in self.segments for word in segment.words)
