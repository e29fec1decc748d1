"""Messages of the native protocol, shared by client and server.

The same messages are JSON texts over WebSocket (`/v1/stream`), lines of JSON over TCP, and msgpack on a WebSocket
opened with `?format=msgpack`. Audio may also be sent as plain binary frames. The sequence of messages:

    client  hello | resume        which stream, its audio format and the key; optional
            config                options: events, model, latency, endpointing
            audio ...             base64, bytes, samples, or plain binary frames
            finalize              requests a final of everything so far, followed by `marker`
            close                 ends the audio: the last finals follow, then `finished`
    server  ready, then speech_started, partial, utterance_end, final, marker, lag, warning,
            and exactly one of finished, failed or cancelled as the last

A client that never asks for events gets `result` messages instead, each with the text so far. Over TCP, and over a
WebSocket at `/`, the server sends `hello` first, for clients that wait for it. Times are seconds of the stream. A field
whose value is unknown is null. Readers must skip unknown fields.

Events are numbered by `seq`, which increases in steps of any size. The server handles messages in order, so a
`received` also acknowledges all requests before that audio. A repeated `close` has no effect.
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
    """Endpointing rules, in seconds. null disables a rule; a missing field keeps the server's default."""

    silence: float | None = 0.6
    end_token: float | None = 0.1
    blanks: float | None = 3.0
    longest: float | None = 30.0
    speech: float = 0.5
    """Threshold of the speech detector, as a probability."""


class Finals(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Finals from a second, more accurate model than that of the partials."""

    model: Name
    budget_ms: Number = 1000
    """If the second model needs longer than this, the final of the fast model is used."""


class Hello(Struct, tag="hello", kw_only=True, omit_defaults=True):
    stream_id: Number | Name | None = None
    sample_rate: Number = 16_000
    encoding: Name = "pcm16"
    """pcm16, f32, mulaw, alaw, or `container` for Ogg, WebM, WAV and other file formats."""
    channels: Number = 1
    key: Name | None = None
    """API key, for transports without headers: TCP."""


class Config(Struct, tag="config", kw_only=True, omit_defaults=True):
    """Options of the stream, sent before the first audio; afterwards only `endpointing` may change."""

    events: bool = True
    model: Name | None = None
    latency_ms: Number | None = None
    language: Name | None = None
    endpointing: Endpointing | None = None
    finals: Finals | None = None
    partials: bool = True
    words: bool = True
    lag: bool = False
    """Whether the server sends `lag` events, once per second."""
    sample_rate: Number | None = None
    encoding: Name | None = None
    channels: Number | None = None


class Resume(Struct, tag="resume", kw_only=True):
    """First message of a connection that resumes a stream after its connection broke."""

    token: Name
    seq: Number = 0
    """Number of the last event that was read; later ones are sent again."""


class Audio(Struct, tag="audio", kw_only=True, omit_defaults=True):
    data: bytes = b""
    """Base64 in JSON, bytes in msgpack."""
    samples: list[float] | None = None
    """Samples from -1 to 1, instead of `data`."""
    encoding: Name | None = None
    final: bool = False
    """Ends the audio, like `close`."""


class Finalize(Struct, tag="finalize", kw_only=True, omit_defaults=True):
    id: Number = 0


class Close(Struct, tag="close"):
    pass


class Cancel(Struct, tag="cancel"):
    """Discards what has not been transcribed."""


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
    """The stream is open."""

    stream_id: int | str
    token: str
    """For `resume`."""
    resume_seconds: float
    """How long a stream may be resumed after its connection broke."""
    model: str
    latency_ms: int
    received: int = 0
    """Bytes of audio that the server has (4 for each of `samples`); after `resume` the client continues from there."""


class Received(Struct, tag="received", kw_only=True):
    """Acknowledges audio, about once per second, so that the client can drop it from its buffer."""

    received: int


class SpeechStarted(Struct, tag="speech_started", kw_only=True):
    seq: int
    utterance: int
    at: float


class Partial(Struct, tag="partial", kw_only=True):
    seq: int
    utterance: int
    stable: str
    """Will not change. The final begins with it, unless finals come from a second model."""
    tail: str
    """May change. The text is `stable + tail`."""
    until: float
    """Audio before this time has been processed."""


class UtteranceEnd(Struct, tag="utterance_end", kw_only=True):
    """The utterance has ended; its final follows."""

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
    """Why the utterance ended: `silence`, `end_token`, `blanks`, `length`, `asked` (a `finalize`) or `closed`."""
    model: str
    confidence: float | None = None
    language: str | None = None
    words: list[Word] | None = None


class Marker(Struct, tag="marker", kw_only=True):
    """Answers `finalize`: all audio sent before it is in the finals before this event."""

    seq: int
    id: int


class Lag(Struct, tag="lag", kw_only=True):
    """How late the processing of live audio is. Audio sent faster than real time does not count as late."""

    seq: int
    seconds: float


class Warned(Struct, tag="warning", kw_only=True):
    seq: int
    code: str
    message: str


class Finished(Struct, tag="finished", kw_only=True):
    seq: int
    seconds: float
    """Duration of the audio that was received and transcribed."""
    problems: list[str] = field(default_factory=list)
    """Parts of the audio that could not be read."""


class Failed(Struct, tag="failed", kw_only=True):
    seq: int
    code: str
    message: str
    hint: str | None = None
    retry_after: float | None = None


class Cancelled(Struct, tag="cancelled", kw_only=True):
    seq: int


class Greeting(Struct, tag="hello", kw_only=True):
    """The server's first message over TCP and at the WebSocket `/`, sent before any message of the client."""

    stream_id: int
    """Id in `result` messages, unless the client chooses one in its own `hello`."""
    sample_rate: int = 16_000


class Error(Struct, tag="error", kw_only=True):
    """A message was invalid or cannot be processed. The stream continues unless the connection is closed afterwards."""

    message: str
    code: str = "bad_message"
    hint: str | None = None
    retry_after: float | None = None


class Pong(Struct, tag="pong", omit_defaults=True):
    id: int | None = None


class Result(Struct, tag="result", kw_only=True):
    """The text so far, for clients that did not ask for events."""

    stream_id: int | str
    text: str
    """Text of the whole stream so far."""
    token_ids: list[int]
    """New tokens since the last result."""
    confidence_scores: list[float | None]
    is_final: bool
    """Whether this is the last result of the stream."""
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
