"""The engine's requests and events: plain data that can be sent between processes.

A client identifies each stream and each clip by a number that it never uses again; the upper bits of the number are the
client's connection. Every stream and every clip gets exactly one of Finished, Failed and Cancelled, as its last event.
Times are seconds of the stream, counted in the samples that were received.
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
    "FINAL_EVENTS",
    "EndReason",
    "StreamEvent",
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
    "Disconnect",
    "UtteranceProgress",
    "Marker",
    "EngineEvent",
    "Open",
    "StreamOpened",
    "Ping",
    "Pong",
    "Request",
    "CapacityChanged",
    "SpeechStarted",
    "StreamOptions",
    "StepTaken",
    "UtteranceEnded",
    "connection_of",
    "stream_numbers",
    "ping_for",
]

Samples = NDArray[np.float32]

NUMBER_BITS = 40
"""Lower bits of a stream's number; the bits above are the connection."""


def stream_numbers(connection: int) -> Iterator[int]:
    """The numbers of a connection's streams, in order; those of connection 0 are 1, 2, 3 ..."""
    return itertools.count((connection << NUMBER_BITS) + 1)


def connection_of(number: int) -> int:
    return number >> NUMBER_BITS


@dataclass(frozen=True, slots=True)
class StreamOptions:
    model: str
    latency_ms: int = 160
    """Audio in a chunk; a multiple of 80."""
    endpointing: Endpointing = field(default_factory=Endpointing)
    prompt: int | None = None
    """Index of the language in the model's prompt; None for models without a prompt."""


class Open(Struct, frozen=True, tag=True):
    stream: int
    options: StreamOptions
    is_replay: bool = False
    """The stream was admitted before the engine restarted, so it is not refused for load."""
    overdue_seconds: float = 0.0
    """Seconds of audio at its beginning that are overdue when it is opened."""


class Audio(Struct, frozen=True, tag=True):
    stream: int
    samples: Samples
    """Mono, 16 kHz, any count."""


class Clip(Struct, frozen=True, tag=True):
    """One clip, transcribed in one go when live streams leave time for it."""

    stream: int
    model: str
    samples: Samples
    prompt: int | None = None
    high_priority: bool = False
    """A live client waits for it, as for the second pass over an utterance."""


class Finalize(Struct, frozen=True, tag=True):
    """Requests final tokens for all audio received so far, followed by a Marker."""

    stream: int
    marker: int


class Configure(Struct, frozen=True, tag=True):
    """Changes the endpointing, from the next chunk on."""

    stream: int
    endpointing: Endpointing


class Close(Struct, frozen=True, tag=True):
    """The stream's audio is complete."""

    stream: int


class Cancel(Struct, frozen=True, tag=True):
    """Drops a stream or a clip."""

    stream: int


class Ping(Struct, frozen=True, tag=True):
    """Liveness probe; not tied to a stream."""

    number: int
    """Identifies the connection, as a stream's number does."""


def ping_for(connection: int) -> Ping:
    """The connection's ping; its number is no stream's."""
    return Ping(connection << NUMBER_BITS)


class Disconnect(Struct, frozen=True, tag=True):
    """A connection ended: cancels all its streams."""

    connection: int


Request = Open | Audio | Clip | Finalize | Configure | Close | Cancel | Ping | Disconnect


class StreamOpened(Struct, frozen=True, tag=True):
    stream: int


class SpeechStarted(Struct, frozen=True, tag=True):
    stream: int
    at: float


class StreamTokens(Struct, frozen=True, tag=True):
    """Final tokens since the previous event of this kind."""

    stream: int
    tokens: tuple[Token, ...]
    until: float
    """All audio before this time is decoded."""


class PartialTokens(Struct, frozen=True, tag=True):
    """Provisional tokens since the last StreamTokens; replaced by the next event of either kind."""

    stream: int
    tokens: tuple[Token, ...]
    until: float
    """End of the audio that was decoded for them."""


class UtteranceProgress(Struct, frozen=True, tag=True):
    """An utterance is in progress; its tokens are decoded when it ends."""

    stream: int
    until: float
    """End of the audio that the speech detector has processed."""


class UtteranceEnded(Struct, frozen=True, tag=True):
    """Ends the utterance of all tokens since the previous UtteranceEnded."""

    stream: int
    at: float
    reason: EndReason


class Marker(Struct, frozen=True, tag=True):
    """All audio before the Finalize with this marker is decoded."""

    stream: int
    marker: int


class Finished(Struct, frozen=True, tag=True):
    """All audio of the stream is decoded."""

    stream: int


class Failed(Struct, frozen=True, tag=True):
    stream: int
    code: str
    message: str
    hint: str | None = None
    retry_after: float | None = None
    """Seconds after which the request may succeed."""


class Cancelled(Struct, frozen=True, tag=True):
    """Confirms a Cancel or a Disconnect."""

    stream: int


StreamEvent = (
    StreamOpened
    | SpeechStarted
    | StreamTokens
    | PartialTokens
    | UtteranceProgress
    | UtteranceEnded
    | Marker
    | Finished
    | Failed
    | Cancelled
)


class Pong(Struct, frozen=True, tag=True):
    number: int


class StepTaken(Struct, frozen=True, tag=True):
    """Statistics of one step."""

    model: str
    latency_ms: int | None
    """None for a step of clips."""
    rows: int
    seconds: float
    open_streams: int
    pending_clips: int
    """Clips that wait or are in progress."""
    stages: dict[str, float] = {}
    """Seconds by stage of the step."""


class CapacityChanged(Struct, frozen=True, tag=True):
    """A recalibration changed how many streams a model can serve in real time."""

    model: str
    capacity: tuple[int, ...]
    """Streams for each latency."""

    def apply_to(self, info: ModelInfo) -> ModelInfo:
        """Updates the info of the live model of that name; a model for clips only may have the same name."""
        return replace(info, capacity=self.capacity) if info.name == self.model and info.latencies else info


EngineEvent = Pong | StepTaken | CapacityChanged
"""Events of the engine, not of one stream."""

DEVICE_FAILED = "device_failed"
"""The code of streams that failed because the engine's device failed. The engine exits after them; the next engine can
continue them."""

FINAL_EVENTS = (Finished, Failed, Cancelled)
"""A stream's last event is one of these."""
