"""Deepgram's live transcription, version 1: the WebSocket `/v1/listen`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
from fastapi import APIRouter, WebSocket

from conure.errors import BadOption
from conure.protocols.deepgram.connection import LiveParams, Message, serve
from conure.protocols.deepgram.live_params import COMMON, audio_of, language_of
from conure.protocols.deepgram.query import DeepgramQuery
from conure.protocols.deepgram.results import ResultOptions, Results
from conure.protocols.deepgram.words import model_info, model_uuid
from conure.protocols.error_codes import message_with_hint
from conure.protocols.services import Services
from conure.safe_text import one_line
from conure.service.channel_streams import ChannelStreams
from conure.service.dialogue_turns import MIN_PAUSE
from conure.service.events import TERMINAL_EVENTS, Event, Failed
from conure.service.live_service import StreamRequest
from conure.vad.endpointing import Endpointing

__all__ = ["listen_socket"]

IDLE_SECONDS = 10.0
"""Without audio or a message, after which a connection is closed."""
LEAST_UTTERANCE_END = 1000
LOOK_EVERY = 0.1
"""Seconds between looks at the time for who wants to know when words stay away."""
KNOWN = COMMON | {
    *("channels", "multichannel", "interim_results", "endpointing", "vad_events", "utterance_end_ms"),
    *("punctuate", "smart_format", "no_delay", "filler_words"),
}
WRITTEN = ("punctuate", "smart_format", "dictation")


def listen_socket(behind: Services) -> APIRouter:
    router = APIRouter()

    @router.websocket("/v1/listen")
    async def listen(socket: WebSocket) -> None:
        query = DeepgramQuery(socket.query_params.multi_items())

        def speak(asked: LiveParams, streams: ChannelStreams, request_id: str) -> _Listener:
            return _Listener(_manner(query), asked, streams, request_id)

        await serve(socket, behind, _asked, speak)

    return router


def _asked(query: DeepgramQuery) -> LiveParams:
    manner, audio = _manner(query), audio_of(query)
    apart = query.flag("multichannel")
    if apart and audio.encoding == "container" and "channels" not in query:
        raise BadOption("multichannel came without channels", "say how many the recording has: channels=2")
    wanted = StreamRequest(model=query.text("model"), language=language_of(query), endpointing=_endpointing(query))
    if manner.utterance_end is not None:
        wanted = replace(wanted, lag_interval=LOOK_EVERY)
    return LiveParams(wanted, audio, audio.channels if apart else 1, query.ignored(KNOWN))


def _manner(query: DeepgramQuery) -> ResultOptions:
    """Raises BadOption."""
    interim = query.flag("interim_results")
    utterance_end = query.milliseconds("utterance_end_ms")
    if isinstance(utterance_end, float):
        if utterance_end < LEAST_UTTERANCE_END:
            raise BadOption(f"utterance_end_ms is {utterance_end:g}", f"it must be at least {LEAST_UTTERANCE_END}")
        if not interim:
            raise BadOption("utterance_end_ms came without interim_results", "add interim_results=true")
    elif utterance_end:
        raise BadOption("utterance_end_ms is 'true'", "it must be a number of milliseconds")
    return ResultOptions(
        written=any(query.flag(name) for name in WRITTEN),
        interim=interim,
        speech_starts=query.flag("vad_events"),
        utterance_end=utterance_end / 1000 if utterance_end else None,
        ends_speech=_endpointing(query).silence is not None,
    )


def _endpointing(query: DeepgramQuery) -> Endpointing:
    """Who names a length wants no model to know better."""
    silence = query.milliseconds("endpointing")
    if silence is None or silence is True:
        return Endpointing()
    seconds = max(silence / 1000, MIN_PAUSE) if silence else None
    return replace(Endpointing(), silence=seconds, end_token=None)


class _KeepAlive(msgspec.Struct, tag="KeepAlive"):
    pass


class _Finalize(msgspec.Struct, tag="Finalize"):
    pass


class _CloseStream(msgspec.Struct, tag="CloseStream"):
    pass


class _Configure(msgspec.Struct, tag="Configure"):
    keyterms: list[str] | None = None
    features: dict[str, bool] | None = None


_decoder = msgspec.json.Decoder(_KeepAlive | _Finalize | _CloseStream | _Configure)


class _Listener:
    """One connection's dialect."""

    idle = IDLE_SECONDS

    def __init__(self, manner: ResultOptions, asked: LiveParams, streams: ChannelStreams, request_id: str) -> None:
        self._asked, self._streams, self._request_id = asked, streams, request_id
        self._created = datetime.now(UTC)
        self._sha256 = hashlib.sha256()
        self._finalized = 0
        card = streams.streams[0].options.model
        metadata = {"request_id": request_id, "model_info": model_info(card), "model_uuid": model_uuid(card)}
        channels = len(streams.streams)
        self._results = [Results(manner, (index, channels), metadata) for index in range(channels)]

    def render_greeting(self) -> Iterable[Message]:
        return ()

    def on_audio(self, data: bytes) -> None:
        self._sha256.update(data)

    async def handle_message(self, text: str) -> Iterable[Message]:
        try:
            message = _decoder.decode(text)
        except (msgspec.MsgspecError, RecursionError) as error:
            return [{"type": "Error", "variant": "SchemaError", "description": one_line(str(error)), "message": text}]
        match message:
            case _Finalize():
                await self._finalize()
            case _CloseStream():
                await self._streams.close()
            case _Configure():
                return [self._configure(message)]
        return ()

    def render_event(self, channel: int, event: Event) -> Iterable[Message]:
        results = self._results[channel]
        yield from results.tell(event)
        if isinstance(event, TERMINAL_EVENTS):
            yield from results.flush()

    def render_end(self) -> Iterable[Message]:
        audio, streams = self._asked.audio, self._streams
        metadata = {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self._request_id,
            "sha256": self._sha256.hexdigest(),
            "created": self._created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "duration": streams.seconds,
            "channels": audio.channels,
        }
        warnings = [_warning(name, "it has no effect here") for name in self._asked.ignored]
        warnings += [_warning("audio", problem) for problem in streams.problems]
        yield metadata | ({"warnings": warnings} if warnings else {})

    def render_failure(self, failed: Failed) -> Iterable[Message]:
        yield {"type": "Error", "variant": failed.code, "description": message_with_hint(failed)}

    async def _finalize(self) -> None:
        self._finalized += 1
        await self._streams.finalize(self._finalized)

    def _configure(self, asked: _Configure) -> Message:
        """All of it or nothing."""
        answer = {"request_id": self._request_id}
        wanted = [name for name, on in (asked.features or {}).items() if on]
        if asked.keyterms:
            code, description = "CONFIGURE_KEYTERMS_NOT_SUPPORTED", "keyterms have no effect here"
        elif wanted:
            code, description = "CONFIGURE_FEATURES_NOT_SUPPORTED", f"{', '.join(wanted)} cannot be switched on here"
        else:
            success = {"type": "ConfigureSuccess"} | answer
            return success if asked.keyterms is None else success | {"keyterms": []}
        return {"type": "ConfigureFailure"} | answer | {"code": code, "description": description}


def _warning(parameter: str, message: str) -> Message:
    return {"parameter": parameter, "type": "ignored", "message": message}
