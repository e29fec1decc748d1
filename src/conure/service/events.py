"""Events of a live session, which every protocol renders. Times are seconds of the stream."""

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
    """Replaces the previous partial of the utterance. Its text is `stable` followed by `tail`."""

    utterance: int
    stable: str
    """Whole words that will not change."""
    tail: str
    """May change."""
    tokens: tuple[Token, ...]
    """New since the previous partial."""
    processed_until: float
    """Audio before this is processed."""
    stable_words: tuple[Word, ...] = ()
    tail_words: tuple[Word, ...] = ()


class UtteranceEnded(Struct, frozen=True):
    """The end of an utterance. Its final follows, at once or after a second pass."""

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
    """Mean of the words' confidence."""
    language: str | None


class Marker(Struct, frozen=True):
    """Answers a finalize: all audio before the request is in the finals before this event."""

    number: int
    at: float = 0.0
    """Seconds of audio before the request."""


class Lag(Struct, frozen=True):
    """How late live audio is processed; sent while audio is received."""

    seconds: float
    """Age of the oldest unprocessed audio; audio that was sent faster than real time has no lag before its time."""
    processed_until: float = 0.0
    """Audio before this is processed."""


class StreamWarning(Struct, frozen=True):
    code: str
    message: str


class Finished(Struct, frozen=True):
    seconds: float
    """Audio of the stream, all of it transcribed."""


class Failed(Struct, frozen=True):
    code: str
    message: str
    hint: str | None = None
    retry_after: float | None = None


class Cancelled(Struct, frozen=True):
    pass


Event = SpeechStarted | Partial | UtteranceEnded | Final | Marker | Lag | StreamWarning | Finished | Failed | Cancelled

TERMINAL_EVENTS = (Finished, Failed, Cancelled)
"""A session ends with exactly one of these."""
