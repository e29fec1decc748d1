"""Deepgram's live transcription, version 2: turns of a conversation over the WebSocket `/v2/listen`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
from fastapi import APIRouter, WebSocket

from conure.errors import BadOption
from conure.protocols.deepgram.connection import ConnectionOver, LiveParams, Message, serve
from conure.protocols.deepgram.live_params import COMMON, audio_of, language_of
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
"""Clients of this version have no message that keeps a connection alive."""
LOOK_EVERY = 0.1
"""Seconds between looks at the time where a turn may be over before it is."""
POLICY = 1008
KNOWN = COMMON | {"eot_threshold", "eager_eot_threshold", "eot_timeout_ms"}
EVENTS = {
    "start": "StartOfTurn",
    "update": "Update",
    "eager_end": "EagerEndOfTurn",
    "resumed": "TurnResumed",
    "end": "EndOfTurn",
}


def turns_socket(behind: Services) -> APIRouter:
    router = APIRouter()

    @router.websocket("/v2/listen")
    async def listen(socket: WebSocket) -> None:
        query = DeepgramQuery(socket.query_params.multi_items())

        def speak(asked: LiveParams, streams: ChannelStreams, request_id: str) -> _Listener:
            return _Listener(_patience(query), asked, streams, request_id)

        await serve(socket, behind, _asked, speak)

    return router


def _asked(query: DeepgramQuery) -> LiveParams:
    patience = _patience(query)
    wanted = StreamRequest(
        model=query.text("model"),
        language=language_of(query),
        endpointing=patience.endpointing,
        lag_interval=_look_every(patience),
    )
    return LiveParams(wanted, audio_of(query), ignored=query.ignored(KNOWN))


def _look_every(patience: EndOfTurnSettings) -> float:
    return LAG_INTERVAL if patience.eager_threshold is None else LOOK_EVERY


def _patience(query: DeepgramQuery) -> EndOfTurnSettings:
    """Raises BadOption."""
    usual = EndOfTurnSettings()
    return EndOfTurnSettings(
        query.number("eot_threshold", usual.threshold),
        query.number("eager_eot_threshold", 0.0) if query.text("eager_eot_threshold") else None,
        query.number("eot_timeout_ms", usual.timeout * 1000) / 1000,
    )


class _KeepAlive(msgspec.Struct, tag="KeepAlive"):
    pass


class _ForceEndTurn(msgspec.Struct, tag="ForceEndTurn"):
    pass


class _CloseStream(msgspec.Struct, tag="CloseStream"):
    pass


class _Thresholds(msgspec.Struct):
    """What is not said stays."""

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
class _Refused:
    code: str
    description: str


class _Listener:
    """One connection's dialect."""

    idle = IDLE_SECONDS

    def __init__(
        self, patience: EndOfTurnSettings, asked: LiveParams, streams: ChannelStreams, request_id: str
    ) -> None:
        self._turns = DialogueTurns(patience)
        self._asked, self._streams, self._request_id = asked, streams, request_id
        self._sequence = 0
        self._forced = 0

    def render_greeting(self) -> Iterator[Message]:
        yield self._message("Connected")
        for name in self._asked.ignored:
            yield self._warning("PARAMETER_IGNORED", f"{name} has no effect here")

    def on_audio(self, data: bytes) -> None:
        pass  # nothing is told of the audio itself

    async def handle_message(self, text: str) -> Iterable[Message]:
        try:
            message = _decoder.decode(text)
        except (msgspec.MsgspecError, RecursionError) as error:
            return self._unreadable(one_line(str(error)))
        match message:
            case _ForceEndTurn():
                self._forced += 1
                await self._streams.finalize(self._forced)
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

    def _unreadable(self, fault: str) -> Iterator[Message]:
        """In this version that is an end."""
        yield self._error("UNPARSABLE_CLIENT_MESSAGE", fault)
        raise ConnectionOver(POLICY, "UNPARSABLE_CLIENT_MESSAGE")

    async def _configure(self, asked: _Configure) -> Message:
        """All of it or nothing."""
        patience = self._changed(asked)
        if isinstance(patience, _Refused):
            code, description = patience.code, patience.description
            return self._message("ConfigureFailure", code=code, error_code=code, description=description)
        self._turns.settings = patience
        await self._streams.configure(patience.endpointing, _look_every(patience))
        thresholds = {"eot_threshold": patience.threshold, "eot_timeout_ms": round(patience.timeout * 1000)}
        if patience.eager_threshold is not None:
            thresholds["eager_eot_threshold"] = patience.eager_threshold
        return self._message("ConfigureSuccess", thresholds=thresholds, keyterms=[], numerals=False)

    def _changed(self, asked: _Configure) -> EndOfTurnSettings | _Refused:
        if asked.keyterms:
            return _Refused("KEYTERMS_NOT_SUPPORTED", "keyterms have no effect here")
        for name in ("language_hints", "numerals", "profanity_filter"):
            if getattr(asked, name):
                return _Refused("FEATURE_NOT_SUPPORTED", f"{name} has no effect here")
        patience, new = self._turns.settings, asked.thresholds or _Thresholds()
        try:
            return EndOfTurnSettings(
                patience.threshold if new.eot_threshold is None else new.eot_threshold,
                patience.eager_threshold if new.eager_eot_threshold is msgspec.UNSET else new.eager_eot_threshold,
                patience.timeout if new.eot_timeout_ms is None else new.eot_timeout_ms / 1000,
            )
        except BadOption as error:
            return _Refused("INVALID_THRESHOLD", f"{error.message}: {error.hint}")

    def _turn_info(self, turn: DialogueTurn) -> Message:
        info = self._message(
            "TurnInfo",
            event=EVENTS[turn.event],
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

    def _message(self, kind: str, **fields: object) -> Message:
        message = {"type": kind, "request_id": self._request_id, "sequence_id": self._sequence} | fields
        self._sequence += 1
        return message


def _word(word: Word) -> Message:
    return {"word": word.text, "confidence": word.confidence, "start": word.start, "end": word.end}
