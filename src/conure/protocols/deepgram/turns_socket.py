"""Deepgram's live transcription, version 2: turns of a dialogue over WebSocket `/v2/listen`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
from fastapi import APIRouter, WebSocket

from conure.errors import BadOption
from conure.protocols.deepgram.connection import ConnectionOver, LiveParams, Message, serve
from conure.protocols.deepgram.live_params import SHARED_PARAMETERS, parse_audio, parse_language
from conure.protocols.deepgram.query import DeepgramQuery
from conure.protocols.error_codes import error_code_for, message_with_hint
from conure.protocols.services import Services
from conure.safe_text import one_line
from conure.service.channel_streams import ChannelStreams
from conure.service.dialogue_turns import DialogueTurn, DialogueTurns, EndOfTurnSettings
from conure.service.events import Event, Failed, StreamWarning
from conure.service.live_service import StreamRequest
from conure.service.session_options import LAG_INTERVAL
from conure.text.words import join_words
from conure.types import Word

__all__ = ["turns_socket"]

IDLE_SECONDS = 60.0
"""Longer than in version 1: clients of version 2 send no keep-alive messages."""
SHORT_LAG_INTERVAL = 0.1
"""Seconds between lag events when eager end of turn is enabled."""
POLICY_VIOLATION = 1008
KNOWN_PARAMETERS = SHARED_PARAMETERS | {"eot_threshold", "eager_eot_threshold", "eot_timeout_ms"}
EVENT_NAMES = {
    "start": "StartOfTurn",
    "update": "Update",
    "eager_end": "EagerEndOfTurn",
    "resumed": "TurnResumed",
    "end": "EndOfTurn",
}


def turns_socket(services: Services) -> APIRouter:
    router = APIRouter()

    @router.websocket("/v2/listen")
    async def listen(socket: WebSocket) -> None:
        query = DeepgramQuery(socket.query_params.multi_items())

        def create_dialect(params: LiveParams, streams: ChannelStreams, request_id: str) -> _Listener:
            return _Listener(_parse_settings(query), params, streams, request_id)

        await serve(socket, services, _parse_params, create_dialect)

    return router


def _parse_params(query: DeepgramQuery) -> LiveParams:
    settings = _parse_settings(query)
    request = StreamRequest(
        model=query.text("model"),
        language=parse_language(query),
        endpointing=settings.endpointing,
        lag_interval=_lag_interval(settings),
    )
    return LiveParams(request, parse_audio(query), ignored=query.ignored(KNOWN_PARAMETERS))


def _lag_interval(settings: EndOfTurnSettings) -> float:
    return LAG_INTERVAL if settings.eager_threshold is None else SHORT_LAG_INTERVAL


def _parse_settings(query: DeepgramQuery) -> EndOfTurnSettings:
    """Raises BadOption."""
    defaults = EndOfTurnSettings()
    return EndOfTurnSettings(
        query.number("eot_threshold", defaults.threshold),
        query.number("eager_eot_threshold", 0.0) if query.text("eager_eot_threshold") else None,
        query.number("eot_timeout_ms", defaults.timeout * 1000) / 1000,
    )


class _KeepAlive(msgspec.Struct, tag="KeepAlive"):
    pass


class _ForceEndTurn(msgspec.Struct, tag="ForceEndTurn"):
    pass


class _CloseStream(msgspec.Struct, tag="CloseStream"):
    pass


class _Thresholds(msgspec.Struct):
    """New thresholds; omitted ones keep their value."""

    eot_threshold: float | None = None
    eager_eot_threshold: float | msgspec.UnsetType | None = msgspec.UNSET
    eot_timeout_ms: float | None = None


class _Configure(msgspec.Struct, tag="Configure"):
    thresholds: _Thresholds | None = None
    keyterms: str | list[str] | None = None
    language_hints: list[str] | None = None
    numerals: bool | None = None
    profanity_filter: bool | None = None


_decoder = msgspec.json.Decoder(_KeepAlive | _ForceEndTurn | _CloseStream | _Configure)


@dataclass(frozen=True)
class _Rejection:
    """The content of a `ConfigureFailure` message."""

    code: str
    description: str


class _Listener:
    """The dialect of one connection."""

    idle = IDLE_SECONDS

    def __init__(
        self, settings: EndOfTurnSettings, params: LiveParams, streams: ChannelStreams, request_id: str
    ) -> None:
        self._turns = DialogueTurns(settings)
        self._params, self._streams, self._request_id = params, streams, request_id
        self._sequence = 0
        self._finalize_count = 0

    def render_greeting(self) -> Iterator[Message]:
        yield self._message("Connected")
        for name in self._params.ignored:
            yield self._warning("PARAMETER_IGNORED", f"{name} has no effect on this server")

    def on_audio(self, data: bytes) -> None:
        pass  # no message depends on the audio itself

    async def handle_message(self, text: str) -> Iterable[Message]:
        try:
            message = _decoder.decode(text)
        except (msgspec.MsgspecError, RecursionError) as error:
            return self._close_on_bad_message(one_line(str(error)))
        match message:
            case _ForceEndTurn():
                self._finalize_count += 1
                await self._streams.finalize(self._finalize_count)
            case _CloseStream():
                await self._streams.close()
            case _Configure():
                return [await self._configure(message)]
        return ()

    def render_event(self, channel: int, event: Event) -> Iterator[Message]:
        if isinstance(event, StreamWarning):
            yield self._warning(event.code.upper(), event.message)
        for turn in self._turns.process_event(event):
            yield self._turn_info(turn)

    def render_end(self) -> Iterator[Message]:
        for problem in self._streams.problems:
            yield self._warning("AUDIO_INCOMPLETE", problem)

    def render_failure(self, failed: Failed) -> Iterator[Message]:
        yield self._error(error_code_for(failed).deepgram, message_with_hint(failed))

    def _close_on_bad_message(self, description: str) -> Iterator[Message]:
        """In this version an unreadable message closes the connection."""
        yield self._error("UNPARSABLE_CLIENT_MESSAGE", description)
        raise ConnectionOver(POLICY_VIOLATION, "UNPARSABLE_CLIENT_MESSAGE")

    async def _configure(self, message: _Configure) -> Message:
        """Applies the whole message or rejects it."""
        settings = self._changed_settings(message)
        if isinstance(settings, _Rejection):
            code, description = settings.code, settings.description
            return self._message("ConfigureFailure", code=code, error_code=code, description=description)
        self._turns.settings = settings
        await self._streams.configure(settings.endpointing, _lag_interval(settings))
        thresholds = {"eot_threshold": settings.threshold, "eot_timeout_ms": round(settings.timeout * 1000)}
        if settings.eager_threshold is not None:
            thresholds["eager_eot_threshold"] = settings.eager_threshold
        return self._message("ConfigureSuccess", thresholds=thresholds, keyterms=[], numerals=False)

    def _changed_settings(self, message: _Configure) -> EndOfTurnSettings | _Rejection:
        if message.keyterms:
            return _Rejection("KEYTERMS_NOT_SUPPORTED", "keyterms are not supported")
        for name in ("language_hints", "numerals", "profanity_filter"):
            if getattr(message, name):
                return _Rejection("FEATURE_NOT_SUPPORTED", f"{name} has no effect on this server")
        settings, thresholds = self._turns.settings, message.thresholds or _Thresholds()
        try:
            return EndOfTurnSettings(
                settings.threshold if thresholds.eot_threshold is None else thresholds.eot_threshold,
                settings.eager_threshold
                if thresholds.eager_eot_threshold is msgspec.UNSET
                else thresholds.eager_eot_threshold,
                settings.timeout if thresholds.eot_timeout_ms is None else thresholds.eot_timeout_ms / 1000,
            )
        except BadOption as error:
            return _Rejection("INVALID_THRESHOLD", f"{error.message}: {error.hint}")

    def _turn_info(self, turn: DialogueTurn) -> Message:
        info = self._message(
            "TurnInfo",
            event=EVENT_NAMES[turn.event],
            turn_index=turn.index,
            audio_window_start=turn.start,
            audio_window_end=turn.until,
            transcript=join_words(turn.words),
            words=[_word(word) for word in turn.words],
            end_of_turn_confidence=turn.confidence,
        )
        return info if turn.trigger is None else info | {"trigger": turn.trigger}

    def _warning(self, code: str, description: str) -> Message:
        return self._message("Warning", code=code, description=description)

    def _error(self, code: str, description: str) -> Message:
        return self._message("Error", code=code, description=description)

    def _message(self, type_: str, **fields: object) -> Message:
        message = {"type": type_, "request_id": self._request_id, "sequence_id": self._sequence} | fields
        self._sequence += 1
        return message


def _word(word: Word) -> Message:
    return {"word": word.text, "confidence": word.confidence, "start": word.start, "end": word.end}
