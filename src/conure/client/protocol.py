"""The native protocol: what a client and a server say to each other, once for both.

The same messages go as JSON texts over WebSocket (`/v1/stream`), as lines of JSON over TCP, and as msgpack where a
WebSocket asks for `?format=msgpack`. Audio may also be sent as bare binary frames. A conversation:

    client  hello | resume        which stream, how its audio comes, and the key; may be left out
            config                what is wanted: events, model, latency, ends of utterances
            audio ...             base64, bytes, samples, or binary frames of their own
            finalize              that was all for now: a final of everything, then `marker`
            close                 that was all: finals, then `finished`
    server  ready, then speech_started, partial, utterance_end, final, marker, lag, warning,
            and once, at the end: finished, failed or cancelled

A client that never asks for events gets `result` messages instead, each with the text so far. Over TCP, and over a
WebSocket at `/`, the server says `hello` first, for clients that wait for it. Times are seconds of the
stream. Fields that the server does not know are null; fields that a reader does not know are to be skipped.

Events are numbered by `seq`, which grows, in steps of any size. Messages are handled in the order in which they come,
so what `received` tells is behind all that was asked before it. `close` said twice is as good as once.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

__all__ = [
    "Audio",
    "Cancel",
    "Cancelled",
    "Close",
    "Config",
    "Endpointing",
    "Error",
    "Failed",
    "Final",
    "Finalize",
    "Finals",
    "Finished",
    "FromClient",
    "FromServer",
    "Greeting",
    "Hello",
    "Lag",
    "Marker",
    "Partial",
    "Ping",
    "Pong",
    "Ready",
    "Received",
    "Result",
    "Resume",
    "SpeechStarted",
    "State",
    "Turn",
    "UtteranceEnd",
    "Warned",
    "Word",
]


Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Name = Annotated[str, Meta(max_length=200)]


class Endpointing(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What ends an utterance, in seconds; null switches a reason off, what is left out stays as the server has it."""

    silence: float | None = 0.6
    end_token: float | None = 0.1
    blanks: float | None = 3.0
    longest: float | None = 30.0
    speech: float = 0.5
    """Probability of speech from which on the speech detector is believed."""


class Finals(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Finals from another, more accurate model than the partials."""

    model: Name
    budget_ms: Number = 1000
    """A final that took longer comes from the fast model."""


class Hello(Struct, tag="hello", kw_only=True, omit_defaults=True):
    stream_id: Number | Name | None = None
    sample_rate: Number = 16_000
    encoding: Name = "pcm16"
    """pcm16, f32, mulaw, alaw, or `container` for Ogg, WebM, WAV and what else a file may be."""
    channels: Number = 1
    key: Name | None = None
    """Of the server, where a connection cannot carry it otherwise: over TCP."""


class Config(Struct, tag="config", kw_only=True, omit_defaults=True):
    """Before the first audio; after it, endpointing alone may change."""

    events: bool = True
    model: Name | None = None
    latency_ms: Number | None = None
    language: Name | None = None
    endpointing: Endpointing | None = None
    finals: Finals | None = None
    partials: bool = True
    words: bool = True
    lag: bool = False
    """Whether `lag` is told, once a second."""
    sample_rate: Number | None = None
    encoding: Name | None = None
    channels: Number | None = None


class Resume(Struct, tag="resume", kw_only=True):
    """First message of a connection that goes on with the stream of a broken one."""

    token: Name
    seq: Number = 0
    """Number of the last event that was read; those after it are sent again."""


class Audio(Struct, tag="audio", kw_only=True, omit_defaults=True):
    data: bytes = b""
    """Base64 in JSON, bytes in msgpack."""
    samples: list[float] | None = None
    """Numbers from -1 to 1 instead of `data`."""
    encoding: Name | None = None
    final: bool = False
    """That was all, as `close`."""


class Finalize(Struct, tag="finalize", kw_only=True, omit_defaults=True):
    id: Number = 0


class Close(Struct, tag="close"):
    pass


class Cancel(Struct, tag="cancel"):
    """The rest need not be transcribed."""


class Ping(Struct, tag="ping", omit_defaults=True):
    id: Number | None = None


State = Literal["speech", "silence"]
Turn = Literal["start_of_utterance", "running", "pause", "end_of_utterance"]

FromClient = Hello | Config | Resume | Audio | Finalize | Close | Cancel | Ping


class Word(Struct, kw_only=True, omit_defaults=True):
    text: str
    start: float | None = None
    end: float | None = None
    confidence: float | None = None
    speaker: str | None = None


class Ready(Struct, tag="ready", kw_only=True):
    """The stream is there."""

    stream_id: int | str
    token: str
    """For `resume`."""
    resume_seconds: float
    """How long a broken connection may stay away."""
    model: str
    latency_ms: int
    received: int = 0
    """Bytes of audio the server has (4 for each of `samples`); after `resume` a client goes on from there."""


class Received(Struct, tag="received", kw_only=True):
    """So much audio is safe on the server's side: about once a second, so that a client can forget it."""

    received: int


class SpeechStarted(Struct, tag="speech_started", kw_only=True):
    seq: int
    utterance: int
    at: float


class Partial(Struct, tag="partial", kw_only=True):
    seq: int
    utterance: int
    stable: str
    """Will not change, and be what the final begins with unless finals come from another model."""
    tail: str
    """May change. The text is `stable` and `tail` one after the other."""
    until: float
    """Audio before this has been worked in."""


class UtteranceEnd(Struct, tag="utterance_end", kw_only=True):
    """The speaker has finished; the final follows."""

    seq: int
    utterance: int
    at: float
    reason: str


class Final(Struct, tag="final", kw_only=True):
    seq: int
    utterance: int
    text: str
    start: float
    end: float
    reason: str
    """silence, end_token, blanks, length, asked (finalize), closed."""
    model: str
    confidence: float | None = None
    language: str | None = None
    words: list[Word] | None = None


class Marker(Struct, tag="marker", kw_only=True):
    """Everything sent before that `finalize` is in the finals before this."""

    seq: int
    id: int


class Lag(Struct, tag="lag", kw_only=True):
    """How late live audio is. What was sent before it would have been spoken is not."""

    seq: int
    seconds: float


class Warned(Struct, tag="warning", kw_only=True):
    seq: int
    code: str
    message: str


class Finished(Struct, tag="finished", kw_only=True):
    seq: int
    seconds: float
    """Audio that was received and transcribed."""
    problems: list[str] = field(default_factory=list)
    """What of the audio could not be read."""


class Failed(Struct, tag="failed", kw_only=True):
    seq: int
    code: str
    message: str
    hint: str | None = None
    retry_after: float | None = None


class Cancelled(Struct, tag="cancelled", kw_only=True):
    seq: int


class Greeting(Struct, tag="hello", kw_only=True):
    """The first message over TCP, and at the WebSocket `/`, before the client has said anything."""

    stream_id: int
    """Of results, where the client does not choose one in its own `hello`."""
    sample_rate: int = 16_000


class Error(Struct, tag="error", kw_only=True):
    """A message was not understood, or not meant; the stream goes on unless the connection is closed after it."""

    message: str
    code: str = "bad_message"
    hint: str | None = None
    retry_after: float | None = None


class Pong(Struct, tag="pong", omit_defaults=True):
    id: int | None = None


class Result(Struct, tag="result", kw_only=True):
    """For clients that did not ask for events."""

    stream_id: int | str
    text: str
    """Of the stream so far."""
    token_ids: list[int]
    """New ones."""
    confidence_scores: list[float | None]
    is_final: bool
    """The last result of the stream."""
    last_state: State | None
    turn_detection: Turn


FromServer = (
    Greeting
    | Ready
    | Received
    | SpeechStarted
    | Partial
    | UtteranceEnd
    | Final
    | Marker
    | Lag
    | Warned
    | Finished
    | Failed
    | Cancelled
    | Error
    | Pong
    | Result
)
