"""A small protocol over WebSocket that some programs speak: `/ws`.

    server  {"type": "Ready", "id": 17}
    client  binary PCM16 at 16 kHz, or msgpack {"type": "Audio", "pcm_bytes": ...}
            at the end "END" or "MARKER", or msgpack {"type": "Marker"}
    server  {"text": new words, "timestamp": clock, "audio_timestamp": seconds, "is_final": false}
            {"text": all of the segment, ..., "is_final": true, "segment_text", "segment_start_time", ...}
            the end, back in the form it came in: END, or {"type": "Marker", "id": -1}

Answers are JSON texts until the client says something in msgpack. Words are told once they will not change, and the
last of a segment before its final. What is new adds up to the text of the whole stream: from the second segment on the
first of it begins with a space.
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

ENDS = ("END", "MARKER")
MAP_OF_SOME = range(0x81, 0x90)
"""First bytes of a small map in msgpack."""
ALL_WELL = 1000


def marker_socket(behind: Services) -> APIRouter:
    router, live = APIRouter(), behind.live
    numbers = live.identity.stream_numbers()

    @router.websocket("/ws")
    async def stream(socket: WebSocket) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            await socket.accept(accepted_subprotocol(socket.headers))
            try:
                caller = behind.access.identify(read_credential(socket.headers, socket.query_params))
                opened = await live.open_stream(StreamRequest(), AudioFormat(), caller)
            except ConureError as error:
                await socket.send_json(_failed(error))
                await socket.close(error_code_for(error).close)
            else:
                await _Connection(socket, live, opened, next(numbers)).serve()

    return router


class _Connection:
    def __init__(self, socket: WebSocket, live: LiveService, stream: LiveStream, number: int) -> None:
        self._socket, self._live, self._stream, self._number = socket, live, stream, number
        self._reader = 0
        self._packed = False
        self._endings: dict[int, Any] = {}
        """What the client said for each end that it was not answered yet."""
        self._finalized = 0
        self._growing = AppendOnlyText()
        self._has_text = False
        """A segment with words is over."""
        self._failed: Failed | None = None
        """How the stream ended."""

    async def serve(self) -> None:
        self._reader = self._live.attach(self._stream)
        try:
            await self._send({"type": "Ready", "id": self._number})
            if direct := self._socket.scope.get("extensions", {}).get(DIRECT_AUDIO):
                direct[SET_RECEIVER](self._take_directly, joined=False)
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read())
                await self._tell()
                reading.cancel()
            with contextlib.suppress(RuntimeError):
                await with_send_timeout(
                    self._socket.close(error_code_for(self._failed).close if self._failed else ALL_WELL)
                )
        except* (WebSocketDisconnect, ClientTooSlow):
            pass
        finally:
            self._live.discard(self._stream)  # nobody can come back to it

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            text, data = message.get("text"), message.get("bytes")
            if data is not None:
                await self._take(data)
            elif text is not None and text.strip() in ENDS:
                await self._finalize(text.strip())
            else:
                await self._refuse(f"a text that is none of {', '.join(ENDS)}")

    def _take_directly(self, data: bytes) -> bool:
        """Audio that is nothing but audio."""
        return _unpacked(data) is None and self._stream.push_audio_now(data, self._reader)

    async def _take(self, data: bytes) -> None:
        packed = _unpacked(data)
        if packed is None:
            await self._stream.push_audio(data, self._reader)
            return
        self._packed = True
        if packed["type"] == "Marker":
            await self._finalize({"type": "Marker", "id": -1})
        elif isinstance(packed.get("pcm_bytes"), bytes):
            await self._stream.push_audio(packed["pcm_bytes"], self._reader)
        else:
            await self._refuse("an Audio without pcm_bytes")

    async def _finalize(self, ending: Any) -> None:
        self._finalized += 1
        self._endings[self._finalized] = ending
        await self._stream.finalize(self._finalized, self._reader)

    async def _refuse(self, fault: str) -> None:
        await self._send({"type": "Error", "code": "bad_message", "message": f"not understood: {fault}"})

    async def _tell(self) -> None:
        async for event in self._stream.events(self._reader):
            for rendered in self._render(event):
                await self._send(rendered)

    def _render(self, event: Event) -> list[Any]:
        match event:
            case Partial(_, stable, _, _, until):
                return self._fresh(stable, until)
            case Final(_, text, _, start, end):
                fresh, self._growing = self._fresh(text, end), AppendOnlyText()
                self._has_text = self._has_text or bool(text)
                times = {"segment_start_time": start, "segment_end_time": end}
                return [*fresh, _said(text, end) | {"is_final": True, "segment_text": text} | times]
            case Marker(number):
                return [self._endings.pop(number)]
            case Failed():
                self._failed = event
                return [_failed(event)]
        return []

    def _fresh(self, text: str, until: float) -> list[Any]:
        """What is new of the segment, of which the final has the last word."""
        is_next = self._has_text and not self._growing.sent
        fresh = self._growing.advance(text)
        if fresh and is_next:
            fresh = f" {fresh}"
        return [_said(fresh, until) | {"is_final": False}] if fresh else []

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
            elif self._packed:
                await self._socket.send_bytes(msgspec.msgpack.encode(message))
            else:
                await self._socket.send_text(msgspec.json.encode(message).decode())
        except RuntimeError as error:
            raise WebSocketDisconnect from error


def _failed(error: ConureError | Failed) -> dict[str, Any]:
    return {
        "type": "Error",
        "code": error.code,
        "message": message_with_hint(error),
        "retry_after": retry_after_for(error),
    }


def _said(text: str, until: float) -> dict[str, Any]:
    return {"text": text, "timestamp": time.time(), "audio_timestamp": until}


def _unpacked(data: bytes) -> dict[str, Any] | None:
    """The message where it is one in msgpack, which PCM hardly ever is by chance."""
    if not data or data[0] not in MAP_OF_SOME or b"\xa4type" not in data:
        return None
    try:
        message = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return message if isinstance(message, dict) and message.get("type") in ("Audio", "Marker") else None
