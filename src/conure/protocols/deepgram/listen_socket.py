"""Deepgram's live transcription, version 1: WebSocket `/v1/listen`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
from fastapi import APIRouter, WebSocket

from conure.errors import BadOption
from conure.protocols.deepgram.connection import LiveParams, Message, serve
from conure.protocols.deepgram.live_params import SHARED_PARAMETERS, parse_audio, parse_language
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
"""Seconds without audio or a message before a connection is closed."""
MIN_UTTERANCE_END_MS = 1000
SHORT_LAG_INTERVAL = 0.1
"""Seconds between lag events; these drive `UtteranceEnd`."""
KNOWN_PARAMETERS = SHARED_PARAMETERS | {
    *("channels", "multichannel", "interim_results", "endpointing", "vad_events", "utterance_end_ms"),
    *("punctuate", "smart_format", "no_delay", "filler_words"),
}
WRITTEN_FORM_FLAGS = ("punctuate", "smart_format", "dictation")


def listen_socket(services: Services) -> APIRouter:
    router = APIRouter()

    @router.websocket("/v1/listen")
    async def listen(socket: WebSocket) -> None:
        query = DeepgramQuery(socket.query_params.multi_items())

        def create_dialect(params: LiveParams, streams: ChannelStreams, request_id: str) -> _Listener:
            return _Listener(_parse_options(query), params, streams, request_id)

        await serve(socket, services, _parse_params, create_dialect)

    return router


def _parse_params(query: DeepgramQuery) -> LiveParams:
    options, audio = _parse_options(query), parse_audio(query)
    is_multichannel = query.flag("multichannel")
    if is_multichannel and audio.encoding == "container" and "channels" not in query:
        raise BadOption("multichannel requires channels for a container", "add the number of channels: channels=2")
    request = StreamRequest(
        model=query.text("model"), language=parse_language(query), endpointing=_parse_endpointing(query)
    )
    if options.utterance_end is not None:
        request = replace(request, lag_interval=SHORT_LAG_INTERVAL)
    return LiveParams(request, audio, audio.channels if is_multichannel else 1, query.ignored(KNOWN_PARAMETERS))


def _parse_options(query: DeepgramQuery) -> ResultOptions:
    """Raises BadOption."""
    interim = query.flag("interim_results")
    utterance_end = query.milliseconds("utterance_end_ms")
    if isinstance(utterance_end, float):
        if utterance_end < MIN_UTTERANCE_END_MS:
            raise BadOption(f"utterance_end_ms is {utterance_end:g}", f"it must be at least {MIN_UTTERANCE_END_MS}")
        if not interim:
            raise BadOption("utterance_end_ms requires interim_results", "add interim_results=true")
    elif utterance_end:
        raise BadOption("utterance_end_ms is 'true'", "it must be a number of milliseconds")
    return ResultOptions(
        written=any(query.flag(name) for name in WRITTEN_FORM_FLAGS),
        interim=interim,
        speech_starts=query.flag("vad_events"),
        utterance_end=utterance_end / 1000 if utterance_end else None,
        ends_speech=_parse_endpointing(query).silence is not None,
    )


def _parse_endpointing(query: DeepgramQuery) -> Endpointing:
    """An explicit silence length disables the model's own end-of-utterance token."""
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
    """The dialect of one connection."""

    idle = IDLE_SECONDS

    def __init__(self, options: ResultOptions, params: LiveParams, streams: ChannelStreams, request_id: str) -> None:
        self._params, self._streams, self._request_id = params, streams, request_id
        self._created = datetime.now(UTC)
        self._sha256 = hashlib.sha256()
        self._finalize_count = 0
        model = streams.streams[0].options.model
        metadata = {"request_id": request_id, "model_info": model_info(model), "model_uuid": model_uuid(model)}
        channels = len(streams.streams)
        self._results = [Results(options, (index, channels), metadata) for index in range(channels)]

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
        yield from results.render_event(event)
        if isinstance(event, TERMINAL_EVENTS):
            yield from results.flush()

    def render_end(self) -> Iterable[Message]:
        audio, streams = self._params.audio, self._streams
        metadata = {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self._request_id,
            "sha256": self._sha256.hexdigest(),
            "created": self._created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "duration": streams.seconds,
            "channels": audio.channels,
        }
        warnings = [_warning(name, "no effect on this server") for name in self._params.ignored]
        warnings += [_warning("audio", problem) for problem in streams.problems]
        yield metadata | ({"warnings": warnings} if warnings else {})

    def render_failure(self, failed: Failed) -> Iterable[Message]:
        yield {"type": "Error", "variant": failed.code, "description": message_with_hint(failed)}

    async def _finalize(self) -> None:
        self._finalize_count += 1
        await self._streams.finalize(self._finalize_count)

    def _configure(self, message: _Configure) -> Message:
        """Applies the whole message or rejects it."""
        answer = {"request_id": self._request_id}
        features = [name for name, is_on in (message.features or {}).items() if is_on]
        if message.keyterms:
            code, description = "CONFIGURE_KEYTERMS_NOT_SUPPORTED", "keyterms are not supported"
        elif features:
            code, description = "CONFIGURE_FEATURES_NOT_SUPPORTED", f"unsupported features: {', '.join(features)}"
        else:
            success = {"type": "ConfigureSuccess"} | answer
            return success if message.keyterms is None else success | {"keyterms": []}
        return {"type": "ConfigureFailure"} | answer | {"code": code, "description": description}


def _warning(parameter: str, message: str) -> Message:
    return {"parameter": parameter, "type": "ignored", "message": message}
