"""Session settings, and the stream settings that follow from them.

An update contains changes; null clears a field. Unknown fields are ignored. An invalid value rejects the whole update,
so a session is valid at all times.
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

LATENCY_BY_DELAY = {"minimal": 80, "low": 160, "medium": 320, "high": 560, "xhigh": 1120}
"""Look-ahead in milliseconds; each model uses its nearest one."""
MAX_SILENCE_BY_EAGERNESS = {"low": 8.0, "medium": 4.0, "auto": 4.0, "high": 2.0}
"""Seconds of silence that end a turn at the latest, for models with an end-of-utterance token."""
SILENCE_BY_EAGERNESS = {"low": 1.6, "medium": 0.8, "auto": 0.8, "high": 0.4}
"""The same for models without one."""
CLIENT_COMMITS = Endpointing(silence=None, end_token=None, blanks=None, longest=None)
MIN_BLANKS = 3.0
MIN_SPEECH, MAX_SPEECH = 0.01, 0.99

ENCODINGS: dict[str, tuple[Encoding, int]] = {
    "audio/pcm": ("pcm16", 24_000),
    "audio/pcmu": ("mulaw", 8_000),
    "audio/pcma": ("alaw", 8_000),
}
"""Encodings and default sample rates."""

Milliseconds = Annotated[int, Meta(ge=0, le=60_000)]


class BadSession(BadOption):
    """An invalid session; `param` is the path of the field."""

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
    """The session settings of any dialect."""

    @property
    def common(self) -> Session:
        """The settings that all dialects share."""
        ...

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """Raises BadSession."""
        ...

    def audio(self, head: bytes) -> AudioFormat:
        """`head`: first bytes of the audio, or empty. Raises BadSession for unsupported formats."""
        ...

    def endpointing(self, has_end_token: bool) -> Endpointing:
        """`has_end_token`: the model emits end-of-utterance tokens. Raises BadSession."""
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
        """Seconds before detected speech that are part of the turn."""
        turn_detection = self.input.turn_detection
        return turn_detection.prefix_padding_ms / 1000 if isinstance(turn_detection, ServerVad) else 0.0

    @property
    def language(self) -> str | None:
        """The spoken language; None if several are given, which leaves detection to the model."""
        transcription = self.input.transcription
        if transcription.language:
            return transcription.language
        languages = transcription.languages or []
        return languages[0] if len(languages) == 1 else None

    def stream_request(self, model: ModelInfo) -> StreamRequest:
        """Builds the request for a stream of this model."""
        delay = self.input.transcription.delay
        return StreamRequest(
            model.name, nearest_latency(model, LATENCY_BY_DELAY[delay]) if delay else None, self.language
        )

    def updated(self, changes: Mapping[str, Any]) -> Self:
        merged = _merged(msgspec.to_builtins(self), changes)
        try:
            return msgspec.convert(_with_defaults(merged), type(self))
        except msgspec.ValidationError as error:
            raise _bad_session(error) from None

    def audio(self, head: bytes) -> AudioFormat:
        format_ = self.input.format
        encoding, rate = ENCODINGS[format_.type]
        try:
            return AudioFormat(encoding, format_.rate or rate)
        except BadOption as error:
            raise BadSession(error.message, error.hint, "session.audio.input.format.rate") from None

    def endpointing(self, has_end_token: bool) -> Endpointing:
        match self.input.turn_detection:
            case None:
                return CLIENT_COMMITS
            case ServerVad(threshold=threshold, silence_duration_ms=milliseconds):
                silence = milliseconds / 1000
                speech = min(max(threshold, MIN_SPEECH), MAX_SPEECH)
                return Endpointing(silence=silence, end_token=None, blanks=max(MIN_BLANKS, silence), speech=speech)
            case SemanticVad(eagerness=eagerness):
                silence = (MAX_SILENCE_BY_EAGERNESS if has_end_token else SILENCE_BY_EAGERNESS)[eagerness]
                return Endpointing(silence=silence, blanks=max(MIN_BLANKS, silence))


def nearest_latency(model: ModelInfo, milliseconds: int) -> int:
    """Returns the nearest latency that the model supports."""
    return min(model.latencies, key=lambda latency: abs(latency - milliseconds))


def _with_defaults(merged: dict[str, Any]) -> dict[str, Any]:
    """Replaces cleared or omitted values by explicit defaults."""
    audio_input = merged["audio"].get("input") if isinstance(merged["audio"], dict) else None
    if isinstance(audio_input, dict):
        if audio_input.get("transcription", {}) is None:
            audio_input["transcription"] = {}
        if isinstance(turn_detection := audio_input.get("turn_detection"), dict):
            turn_detection.setdefault("type", "server_vad")
    return merged


def _merged(current: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merges nested objects; one with a new `type` replaces the old one."""
    merged = dict(current)
    for name, value in changes.items():
        current_value = current.get(name)
        if isinstance(value, dict) and isinstance(current_value, dict):
            is_replaced = "type" in value and value["type"] != current_value.get("type")
            merged[name] = dict(value) if is_replaced else _merged(current_value, value)
        else:
            merged[name] = value
    return merged


def _bad_session(error: msgspec.ValidationError) -> BadSession:
    message, _, path = str(error).partition(" - at `$")
    param = "session" + path.rstrip("`")
    return BadSession(f"{param}: {message[:1].lower() + message[1:]}", None, param)
