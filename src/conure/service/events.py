"""What a live session tells: the one model that every door renders from. Times are seconds of the stream."""

from __future__ import annotations

from msgspec import Struct

from conure.types import Token, Word
from conure.vad.endpointing import EndReason

__all__ = [
    "TERMINAL_EVENTS",
    "Cancelled",
    "Event",
    "Failed",
    "Final",
    "Finished",
    "Lag",
    "Marker",
    "Partial",
    "SpeechStarted",
    "UtteranceEnded",
    "StreamWarning",
]


class SpeechStarted(Struct, frozen=True):
    utterance: int
    at: float


class Partial(Struct, frozen=True):
    """Replaces the one before it. The text is `stable` and `tail` one after the other."""

    utterance: int
    stable: str
    """Whole words that will not change."""
    tail: str
    """May change."""
    tokens: tuple[Token, ...]
    """New since the last one."""
    processed_until: float
    """Audio before this has been worked in."""
    stable_words: tuple[Word, ...] = ()
    tail_words: tuple[Word, ...] = ()


class UtteranceEnded(Struct, frozen=True):
    """The speaker has finished. The final follows, at once or when a second pass is done."""

    utterance: int
    at: float
    reason: EndReason


class Final(Struct, frozen=True):
    utterance: int
    text: str
    words: tuple[Word, ...]
    start: float
    end: float
    reason: EndReason
    model: str
    confidence: float | None
    """Mean of its words'."""
    language: str | None


class Marker(Struct, frozen=True):
    """Everything said before that request is in the finals before this."""

    number: int
    at: float = 0.0
    """Seconds of audio before it."""


class Lag(Struct, frozen=True):
    """How late live audio is; it comes while audio does."""

    seconds: float
    """Since the oldest audio was spoken that is not worked in; audio that came ahead of its time is not late."""
    processed_until: float = 0.0
    """Audio before this has been worked in."""


class StreamWarning(Struct, frozen=True):
    code: str
    message: str


class Finished(Struct, frozen=True):
    seconds: float
    """Audio in the stream, all of it transcribed."""


class Failed(Struct, frozen=True):
    code: str
    message: str
    hint: str | None = None
    retry_after: float | None = None


class Cancelled(Struct, frozen=True):
    pass


Event = SpeechStarted | Partial | UtteranceEnded | Final | Marker | Lag | StreamWarning | Finished | Failed | Cancelled

TERMINAL_EVENTS = (Finished, Failed, Cancelled)
"""A session ends with one of these, once."""
