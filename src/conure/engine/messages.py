"""What may be asked of the engine, and what it answers: plain data that another process could have sent.

Streams and clips are known by numbers that whoever asks makes up and never uses twice. Where several processes ask,
each has numbers of its own: the upper bits say whose they are. Every stream and every clip that was accepted is
answered with one of Finished, Failed and Cancelled, once, and with nothing after it. Times are seconds of the stream,
counted in the samples that were received.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from conure.engine.plan import ModelInfo
from conure.types import Token
from conure.vad.endpointing import Endpointing, EndReason

__all__ = [
    "DEVICE_FAILED",
    "ENDS",
    "EndReason",
    "Answer",
    "Audio",
    "Cancel",
    "Cancelled",
    "Clip",
    "Close",
    "Configure",
    "Failed",
    "Finalize",
    "Finished",
    "PartialTokens",
    "StreamTokens",
    "Leave",
    "ClipTokens",
    "Marker",
    "Note",
    "Open",
    "StreamOpened",
    "Ping",
    "Pong",
    "Request",
    "QueueRoom",
    "SpeechStarted",
    "StreamOptions",
    "StepTaken",
    "UtteranceEnded",
    "connection_of",
    "numbers_of",
    "ping_of",
]

Samples = NDArray[np.float32]

OWN_BITS = 40
"""Of a number are the connection's own; those above are the connection."""


def numbers_of(connection: int) -> Iterator[int]:
    """All that a connection may use, one after the other; those of connection 0 are 1, 2, 3 ..."""
    return itertools.count((connection << OWN_BITS) + 1)


def connection_of(number: int) -> int:
    return number >> OWN_BITS


@dataclass(frozen=True, slots=True)
class StreamOptions:
    model: str
    latency_ms: int = 160
    """Audio in a chunk; a multiple of 80."""
    endpointing: Endpointing = field(default_factory=Endpointing)
    prompt: int | None = None
    """The language's slot, where the model takes one."""


class Open(Struct, frozen=True, tag=True):
    stream: int
    options: StreamOptions
    again: bool = False
    """It was promised to be in time before the engine was started anew, so it is not refused for want of time."""
    late: float = 0.0
    """Seconds at the beginning of its audio that should have been worked in before now."""


class Audio(Struct, frozen=True, tag=True):
    stream: int
    samples: Samples
    """Mono, 16 kHz, of any number."""


class Clip(Struct, frozen=True, tag=True):
    """A stream that is all there: to be heard whole, at most half a minute at a time, when there is time for it."""

    stream: int
    model: str
    samples: Samples
    prompt: int | None = None
    urgent: bool = False
    """Somebody waits for it now, as for the second pass over what was just said live."""


class Finalize(Struct, frozen=True, tag=True):
    """That was all for now: everything received is to come out as a final, followed by the marker."""

    stream: int
    marker: int


class Configure(Struct, frozen=True, tag=True):
    """Other rules for the ends of utterances, from the next chunk on."""

    stream: int
    endpointing: Endpointing


class Close(Struct, frozen=True, tag=True):
    """That was all."""

    stream: int


class Cancel(Struct, frozen=True, tag=True):
    """Nobody waits for it any more."""

    stream: int


class Ping(Struct, frozen=True, tag=True):
    """Is the engine at work? About no stream."""

    number: int
    """Of the one who asks, as a stream's."""


def ping_of(connection: int) -> Ping:
    """That connection's ping, under a number that no stream has."""
    return Ping(connection << OWN_BITS)


class Leave(Struct, frozen=True, tag=True):
    """Nobody is there any more to hear of any stream of that connection."""

    connection: int


Request = Open | Audio | Clip | Finalize | Configure | Close | Cancel | Ping | Leave


class StreamOpened(Struct, frozen=True, tag=True):
    stream: int


class SpeechStarted(Struct, frozen=True, tag=True):
    stream: int
    at: float


class StreamTokens(Struct, frozen=True, tag=True):
    """What was said since the last one; it will not change."""

    stream: int
    tokens: tuple[Token, ...]
    until: float
    """All audio before is worked in."""


class PartialTokens(Struct, frozen=True, tag=True):
    """What seems to have been said since the last Heard. The next one replaces it, and a Heard makes it void."""

    stream: int
    tokens: tuple[Token, ...]
    until: float
    """Up to where it was listened."""


class ClipTokens(Struct, frozen=True, tag=True):
    """An utterance goes on, and will be heard when it is over."""

    stream: int
    until: float
    """Up to where the speech detector has followed."""


class UtteranceEnded(Struct, frozen=True, tag=True):
    """Tokens that were heard since the utterance before it are this one's."""

    stream: int
    at: float
    reason: EndReason


class Marker(Struct, frozen=True, tag=True):
    """Everything that came before the request of that number is done."""

    stream: int
    marker: int


class Finished(Struct, frozen=True, tag=True):
    """All that came was worked in."""

    stream: int


class Failed(Struct, frozen=True, tag=True):
    stream: int
    code: str
    message: str
    hint: str | None = None
    retry_after: float | None = None
    """Seconds after which the same may succeed."""


class Cancelled(Struct, frozen=True, tag=True):
    """As was asked."""

    stream: int


Answer = (
    StreamOpened
    | SpeechStarted
    | StreamTokens
    | PartialTokens
    | ClipTokens
    | UtteranceEnded
    | Marker
    | Finished
    | Failed
    | Cancelled
)


class Pong(Struct, frozen=True, tag=True):
    number: int


class StepTaken(Struct, frozen=True, tag=True):
    """A turn was made; its answers come with it."""

    model: str
    latency_ms: int | None
    """None for a slice of clips."""
    rows: int
    seconds: float
    live: int
    """Streams that are open."""
    clips: int
    """Clips that wait or are being worked on."""
    stages: dict[str, float] = {}
    """Seconds of its parts, as far as they were measured."""


class QueueRoom(Struct, frozen=True, tag=True):
    """A model was measured again: so many streams are promised to be in time."""

    model: str
    capacity: tuple[int, ...]
    """For each latency."""

    def on(self, card: ModelInfo) -> ModelInfo:
        """The card with it, where it is that model's; one for clips alone may have the same name."""
        return replace(card, capacity=self.capacity) if card.name == self.model and card.latencies else card


Note = Pong | StepTaken | QueueRoom
"""Told of the engine, not of a stream."""

DEVICE_FAILED = "device_failed"
"""The code of streams that were cut off because the engine's device failed. The engine ends with them; the next one can
hear them from where they stood."""

ENDS = (Finished, Failed, Cancelled)
"""The last answer of a stream is one of these."""
