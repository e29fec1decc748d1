"""WebSocket `/ws`: a small protocol used by existing clients of Parakeet servers.

    server  {"type": "Ready", "id": 17}
    client  binary PCM16 at 16 kHz, or msgpack {"type": "Audio", "pcm_bytes": ...}
            at the end "END" or "MARKER", or msgpack {"type": "Marker"}
    server  {"text": new words, "timestamp": clock, "audio_timestamp": seconds, "is_final": false}
            {"text": all of the segment, ..., "is_final": true, "segment_text", "segment_start_time", ...}
            the marker, echoed in the form in which it came: END, or {"type": "Marker", "id": -1}

Responses are JSON texts until the client sends its first msgpack message. Words are sent once they are stable, and the
last words of a segment before its final. The texts of non-final messages add up to the text of the whole stream: from
the second segment on, the first of each segment begins with a space.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import msgspec
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from conure.audio.formats import AudioFormat
from conure.errors import ConureError
from conure.protocols.append_only_text import AppendOnlyText
from conure.protocols.error_codes import error_code_for, message_with_hint, retry_after_for
from conure.protocols.http.credentials import accepted_subprotocol, read_credential
from conure.protocols.http.uvicorn_websocket import DIRECT_AUDIO, SET_RECEIVER
from conure.protocols.send_timeout import CLIENT_TOO_SLOW, ClientTooSlow, with_send_timeout
from conure.protocols.services import Services
from conure.service.events import Event, Failed, Final, Marker, Partial
from conure.service.live_service import LiveService, LiveStream, StreamRequest

__all__ = ["marker_socket"]

MARKERS = ("END", "MARKER")
SMALL_MAP = range(0x81, 0x90)
"""First bytes of a non-empty small map in msgpack."""
NORMAL_CLOSURE = 1000


def marker_socket(services: Services) -> APIRouter:
    router, live = APIRouter(), services.live
    stream_ids = live.identity.stream_numbers()

    @router.websocket("/ws")
    async def stream(socket: WebSocket) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            await socket.accept(accepted_subprotocol(socket.headers))
            try:
                caller = services.access.identify(read_credential(socket.headers, socket.query_params))
                opened = await live.open_stream(StreamRequest(), AudioFormat(), caller)
            except ConureError as error:
                await socket.send_json(_error_message(error))
                await socket.close(error_code_for(error).close)
            else:
                await _Connection(socket, live, opened, next(stream_ids)).serve()

    return router


class _Connection:
    def __init__(self, socket: WebSocket, live: LiveService, stream: LiveStream, stream_id: int) -> None:
        self._socket, self._live, self._stream, self._id = socket, live, stream, stream_id
        self._reader = 0
        self._uses_msgpack = False
        self._pending_markers: dict[int, Any] = {}
        """The marker to echo, by number of its finalize request."""
        self._finalize_count = 0
        self._segment_text = AppendOnlyText()
        self._has_text = False
        """Whether a segment with words has ended."""
        self._failure: Failed | None = None
        """The error that ended the stream."""

    async def serve(self) -> None:
        self._reader = self._live.attach(self._stream)
        try:
            await self._send({"type": "Ready", "id": self._id})
            if direct_audio := self._socket.scope.get("extensions", {}).get(DIRECT_AUDIO):
                direct_audio[SET_RECEIVER](self._push_audio_now, joined=False)
            async with asyncio.TaskGroup() as tasks:
                receiving = tasks.create_task(self._receive())
                await self._send_events()
                receiving.cancel()
            with contextlib.suppress(RuntimeError):
                await with_send_timeout(
                    self._socket.close(error_code_for(self._failure).close if self._failure else NORMAL_CLOSURE)
                )
        except* (WebSocketDisconnect, ClientTooSlow):
            pass
        finally:
            self._live.discard(self._stream)  # the stream is not resumable

    async def _receive(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            text, data = message.get("text"), message.get("bytes")
            if data is not None:
                await self._handle_bytes(data)
            elif text is not None and text.strip() in MARKERS:
                await self._finalize(text.strip())
            else:
                await self._send_error(f"expected one of {', '.join(MARKERS)}")

    def _push_audio_now(self, data: bytes) -> bool:
        """Fast path for raw audio. Returns False for msgpack messages."""
        return _decode_msgpack(data) is None and self._stream.push_audio_now(data, self._reader)

    async def _handle_bytes(self, data: bytes) -> None:
        message = _decode_msgpack(data)
        if message is None:
            await self._stream.push_audio(data, self._reader)
            return
        self._uses_msgpack = True
        if message["type"] == "Marker":
            await self._finalize({"type": "Marker", "id": -1})
        elif isinstance(message.get("pcm_bytes"), bytes):
            await self._stream.push_audio(message["pcm_bytes"], self._reader)
        else:
            await self._send_error("Audio without pcm_bytes")

    async def _finalize(self, marker: Any) -> None:
        self._finalize_count += 1
        self._pending_markers[self._finalize_count] = marker
        await self._stream.finalize(self._finalize_count, self._reader)

    async def _send_error(self, reason: str) -> None:
        await self._send({"type": "Error", "code": "bad_message", "message": f"invalid message: {reason}"})

    async def _send_events(self) -> None:
        async for event in self._stream.events(self._reader):
            for message in self._render(event):
                await self._send(message)

    def _render(self, event: Event) -> list[Any]:
        match event:
            case Partial(_, stable, _, _, until):
                return self._render_text(stable, until)
            case Final(_, text, _, start, end):
                new_messages, self._segment_text = self._render_text(text, end), AppendOnlyText()
                self._has_text = self._has_text or bool(text)
                times = {"segment_start_time": start, "segment_end_time": end}
                return [*new_messages, _text_message(text, end) | {"is_final": True, "segment_text": text} | times]
            case Marker(number):
                return [self._pending_markers.pop(number)]
            case Failed():
                self._failure = event
                return [_error_message(event)]
        return []

    def _render_text(self, text: str, until: float) -> list[Any]:
        """Renders the text of the segment that was not sent yet; a changed text is left to the final."""
        is_next = self._has_text and not self._segment_text.sent
        new_text = self._segment_text.append(text)
        if new_text and is_next:
            new_text = f" {new_text}"
        return [_text_message(new_text, until) | {"is_final": False}] if new_text else []

    async def _send(self, message: Any) -> None:
        try:
            await with_send_timeout(self._send_now(message))
        except ClientTooSlow:
            self._stream.session.stop(CLIENT_TOO_SLOW)
            raise

    async def _send_now(self, message: Any) -> None:
        try:
            if isinstance(message, str):
                await self._socket.send_text(message)
            elif self._uses_msgpack:
                await self._socket.send_bytes(msgspec.msgpack.encode(message))
            else:
                await self._socket.send_text(msgspec.json.encode(message).decode())
        except RuntimeError as error:
            raise WebSocketDisconnect from error


def _error_message(error: ConureError | Failed) -> dict[str, Any]:
    return {
        "type": "Error",
        "code": error.code,
        "message": message_with_hint(error),
        "retry_after": retry_after_for(error),
    }


def _text_message(text: str, until: float) -> dict[str, Any]:
    return {"text": text, "timestamp": time.time(), "audio_timestamp": until}


def _decode_msgpack(data: bytes) -> dict[str, Any] | None:
    """Returns the msgpack message, or None for raw audio, which is very unlikely to look like one."""
    if not data or data[0] not in SMALL_MAP or b"\xa4type" not in data:
        return None
    try:
        message = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return message if isinstance(message, dict) and message.get("type") in ("Audio", "Marker") else None
