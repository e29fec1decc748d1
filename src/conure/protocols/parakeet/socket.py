"""Live audio at `/v3/stream?sample_rate=&vad_threshold=&hangover_s=`: finals only, one message per utterance.

server  {"type": "ready"}
client  binary PCM16, mono; at the end the text `finalize`
server  {"text", "start", "end", "speaker": null, "is_user": false, "person_id": null, "detected_language"} ...
        then closes with 1000 stream_complete, or with a code and reason that describe the error
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.datastructures import QueryParams

from conure.audio.formats import AudioFormat
from conure.errors import BadOption, Busy, ConureError, TooMany
from conure.protocols.error_codes import error_code_for, message_with_hint
from conure.protocols.http.credentials import read_credential
from conure.protocols.http.uvicorn_websocket import DIRECT_AUDIO, SET_RECEIVER
from conure.protocols.send_timeout import CLIENT_TOO_SLOW, ClientTooSlow, with_send_timeout
from conure.protocols.services import Services
from conure.safe_text import close_reason
from conure.service.events import Failed, Final, Finished
from conure.service.languages import only_language
from conure.service.live_service import LiveService, LiveStream, StreamRequest
from conure.vad.endpointing import Endpointing

__all__ = ["stream_router"]

FINALIZE, STREAM_COMPLETE = "finalize", "stream_complete"
TRY_AGAIN_LATER = 1013


def stream_router(services: Services) -> APIRouter:
    router, live = APIRouter(), services.live

    @router.websocket("/v3/stream")
    async def stream(socket: WebSocket) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            await socket.accept()
            try:
                caller = services.access.identify(read_credential(socket.headers, socket.query_params))
                stream_request, audio = _parse_query(socket.query_params)
                opened = await live.open_stream(stream_request, audio, caller)
            except ConureError as error:
                code, reason = _rejection_code_and_reason(error, live)
                await socket.close(code, reason)
            else:
                await _Connection(socket, live, opened).serve()

    return router


class _Connection:
    def __init__(self, socket: WebSocket, live: LiveService, stream: LiveStream) -> None:
        self._socket, self._live, self._stream = socket, live, stream
        self._reader = live.attach(stream)
        self._only_language = only_language(stream.options.model.languages)

    async def serve(self) -> None:
        try:
            await self._send({"type": "ready"})
            if direct_audio := self._socket.scope.get("extensions", {}).get(DIRECT_AUDIO):
                direct_audio[SET_RECEIVER](self._push_audio_now)
            async with asyncio.TaskGroup() as tasks:
                receiving = tasks.create_task(self._receive())
                code, reason = await self._send_finals()
                receiving.cancel()
            with contextlib.suppress(RuntimeError):
                await with_send_timeout(self._socket.close(code, reason))
        except* (WebSocketDisconnect, ClientTooSlow):
            pass
        finally:
            self._live.discard(self._stream)  # the stream is not resumable

    def _push_audio_now(self, data: bytes) -> bool:
        return self._stream.push_audio_now(data, self._reader)

    async def _receive(self) -> None:
        """Receives audio until `finalize`; after it, reads on only to detect a disconnect."""
        is_finalized = False
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            text, data = message.get("text"), message.get("bytes")
            if is_finalized:
                continue
            if data is not None:
                await self._stream.push_audio(data, self._reader)
            elif text is not None and text.strip() == FINALIZE:
                is_finalized = True
                await self._stream.close(self._reader)

    async def _send_finals(self) -> tuple[int, str]:
        """Sends finals to the end of the stream. Returns the close code and reason."""
        async for event in self._stream.events(self._reader):
            match event:
                case Final() if event.text:
                    await self._send(self._segment(event))
                case Finished():
                    return 1000, STREAM_COMPLETE
                case Failed():
                    return _close_code_and_reason(event)
        return 1011, "cancelled"

    def _segment(self, final: Final) -> dict[str, Any]:
        no_speaker = {"speaker": None, "is_user": False, "person_id": None}
        times = {"text": final.text, "start": final.start, "end": final.end}
        return times | no_speaker | {"detected_language": final.language or self._only_language}

    async def _send(self, message: dict[str, Any]) -> None:
        try:
            await with_send_timeout(self._socket.send_json(message))
        except RuntimeError as error:
            raise WebSocketDisconnect from error
        except ClientTooSlow:
            self._stream.session.stop(CLIENT_TOO_SLOW)
            raise


def _parse_query(query: QueryParams) -> tuple[StreamRequest, AudioFormat]:
    """Raises BadOption."""
    endpointing = Endpointing()
    if "vad_threshold" in query:
        endpointing = replace(endpointing, speech=_number(query, "vad_threshold"))
    if "hangover_s" in query:  # an explicit hangover disables the model's end-of-utterance token
        endpointing = replace(endpointing, silence=_number(query, "hangover_s"), end_token=None)
    rate = _number(query, "sample_rate") if "sample_rate" in query else 16_000.0
    if not rate.is_integer():
        raise BadOption(f"sample_rate is {rate:g}", "send an integer, preferably 16000")
    return StreamRequest(endpointing=endpointing), AudioFormat(sample_rate=int(rate))


def _number(query: QueryParams, name: str) -> float:
    try:
        return float(query[name])
    except ValueError:
        raise BadOption(f"{name} is {query[name]!r}", "send a number") from None


def _rejection_code_and_reason(error: ConureError, live: LiveService) -> tuple[int, str]:
    """Returns the close code and reason for a stream that could not be opened."""
    if isinstance(error, TooMany):
        return TRY_AGAIN_LATER, "allocation_rejected"
    if not isinstance(error, Busy):
        return _close_code_and_reason(error)
    if live.is_draining:
        return TRY_AGAIN_LATER, "draining"
    return TRY_AGAIN_LATER, "capacity_full" if live.engine.is_ready else "service_not_ready"


def _close_code_and_reason(error: ConureError | Failed) -> tuple[int, str]:
    if error.code == "server_stopped":
        return TRY_AGAIN_LATER, "draining"
    return error_code_for(error).close, close_reason(f"{error.code}: {message_with_hint(error)}")
