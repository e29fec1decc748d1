"""What a client has asked of its session, and what that means for a stream.

An update says what changes; null clears. What is not understood by name is left out, what has a wrong value is refused
as a whole, so a session is always one that can be served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol, Self

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from conure.audio.formats import AudioFormat, Encoding
from conure.engine.plan import ModelInfo
from conure.errors import BadOption
from conure.service.live_service import StreamRequest
from conure.vad.endpointing import Endpointing

__all__ = ["LOGPROBS", "SessionFields", "BadSession", "Session", "nearest_latency"]

LOGPROBS = "item.input_audio_transcription.logprobs"

DELAYS = {"minimal": 80, "low": 160, "medium": 320, "high": 560, "xhigh": 1120}
"""Milliseconds of audio that the model waits for; each model takes its nearest."""
EAGERNESS = {"low": 8.0, "medium": 4.0, "auto": 4.0, "high": 2.0}
"""Seconds of silence after which a turn is over at the latest, where the model itself hears ends of turns."""
PATIENCE = {"low": 1.6, "medium": 0.8, "auto": 0.8, "high": 0.4}
"""The same where it does not."""
CLIENT_ENDS = Endpointing(silence=None, end_token=None, blanks=None, longest=None)
BLANKS = 3.0
LEAST_SPEECH, MOST_SPEECH = 0.01, 0.99

ENCODINGS: dict[str, tuple[Encoding, int]] = {
    "audio/pcm": ("pcm16", 24_000),
    "audio/pcmu": ("mulaw", 8_000),
    "audio/pcma": ("alaw", 8_000),
}
"""And the rate where none is named."""

Milliseconds = Annotated[int, Meta(ge=0, le=60_000)]


class BadSession(BadOption):
    """Names what of the session is wrong in `param`."""

    def __init__(self, message: str, hint: str | None = None, param: str | None = None) -> None:
        super().__init__(message, hint)
        self.param = param


class Format(Struct, frozen=True):
    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int | UnsetType = UNSET


class Transcription(Struct, frozen=True, kw_only=True):
    model: str | None = None
    language: str | None = None
    languages: list[str] | UnsetType | None = UNSET
    keywords: list[str] | UnsetType | None = UNSET
    prompt: str | UnsetType | None = UNSET
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | UnsetType | None = UNSET


class ServerVad(Struct, frozen=True, tag_field="type", tag="server_vad"):
    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    prefix_padding_ms: Milliseconds = 300
    silence_duration_ms: Annotated[int, Meta(ge=1, le=60_000)] = 500
    idle_timeout_ms: int | None = None
    create_response: bool | UnsetType | None = UNSET
    interrupt_response: bool | UnsetType | None = UNSET


class SemanticVad(Struct, frozen=True, tag_field="type", tag="semantic_vad"):
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool | UnsetType | None = UNSET
    interrupt_response: bool | UnsetType | None = UNSET


class AudioInput(Struct, frozen=True):
    format: Format = Format()
    noise_reduction: dict[str, Any] | None = None
    transcription: Transcription = Transcription()
    turn_detection: ServerVad | SemanticVad | None = ServerVad()


class Audio(Struct, frozen=True):
    input: AudioInput = AudioInput()


class SessionFields(Protocol):
    """A session of any dialect."""

    @property
    def common(self) -> Session:
        """What it has in common with the others."""
        ...

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """Raises BadSession."""
        ...

    def audio(self, head: bytes) -> AudioFormat:
        """`head`: the first of it, where it has come. Raises BadSession for what is not taken."""
        ...

    def endpointing(self, hears_ends: bool) -> Endpointing:
        """`hears_ends`: the model itself says when a turn is over. Raises BadSession."""
        ...


class Session(Struct, frozen=True):
    type: Literal["transcription"] = "transcription"
    audio_: Audio = msgspec.field(name="audio", default=Audio())
    include: list[str] | None = None

    @property
    def common(self) -> Session:
        return self

    @property
    def input(self) -> AudioInput:
        return self.audio_.input

    @property
    def padding(self) -> float:
        """Seconds before speech that belong to it."""
        turns = self.input.turn_detection
        return turns.prefix_padding_ms / 1000 if isinstance(turns, ServerVad) else 0.0

    @property
    def language(self) -> str | None:
        """The one that is spoken; several are for the model to tell apart."""
        transcription = self.input.transcription
        if transcription.language:
            return transcription.language
        several = transcription.languages or []
        return several[0] if len(several) == 1 else None

    def stream_request(self, card: ModelInfo) -> StreamRequest:
        """Of that model."""
        delay = self.input.transcription.delay
        return StreamRequest(card.name, nearest_latency(card, DELAYS[delay]) if delay else None, self.language)

    def updated(self, changes: Mapping[str, Any]) -> Self:
        merged = _merged(msgspec.to_builtins(self), changes)
        try:
            return msgspec.convert(_filled(merged), type(self))
        except msgspec.ValidationError as error:
            raise _explained(error) from None

    def audio(self, head: bytes) -> AudioFormat:
        asked = self.input.format
        encoding, rate = ENCODINGS[asked.type]
        try:
            return AudioFormat(encoding, asked.rate or rate)
        except BadOption as error:
            raise BadSession(error.message, error.hint, "session.audio.input.format.rate") from None

    def endpointing(self, hears_ends: bool) -> Endpointing:
        match self.input.turn_detection:
            case None:
                return CLIENT_ENDS
            case ServerVad(threshold=threshold, silence_duration_ms=milliseconds):
                silence = milliseconds / 1000
                speech = min(max(threshold, LEAST_SPEECH), MOST_SPEECH)
                return Endpointing(silence=silence, end_token=None, blanks=max(BLANKS, silence), speech=speech)
            case SemanticVad(eagerness=eagerness):
                silence = (EAGERNESS if hears_ends else PATIENCE)[eagerness]
                return Endpointing(silence=silence, blanks=max(BLANKS, silence))


def nearest_latency(card: ModelInfo, milliseconds: int) -> int:
    """The model's latency that is nearest."""
    return min(card.latencies, key=lambda latency: abs(latency - milliseconds))


def _filled(merged: dict[str, Any]) -> dict[str, Any]:
    """What may be cleared or left out, as it has to be written."""
    heard = merged["audio"].get("input") if isinstance(merged["audio"], dict) else None
    if isinstance(heard, dict):
        if heard.get("transcription", {}) is None:
            heard["transcription"] = {}
        if isinstance(turns := heard.get("turn_detection"), dict):
            turns.setdefault("type", "server_vad")
    return merged


def _merged(old: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """What has another `type` than before shares nothing with it."""
    merged = dict(old)
    for name, value in change.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            is_other = "type" in value and value["type"] != before.get("type")
            merged[name] = dict(value) if is_other else _merged(before, value)
        else:
            merged[name] = value
    return merged


def _explained(error: msgspec.ValidationError) -> BadSession:
    message, _, path = str(error).partition(" - at `$")
    param = "session" + path.rstrip("`")
    return BadSession(f"{param}: {message[:1].lower() + message[1:]}", None, param)
