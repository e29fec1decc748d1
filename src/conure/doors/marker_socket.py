"""A small protocol over WebSocket that some programs speak: `/ws`.

    server  {"type": "Ready", "id": 17}
    client  binary PCM16 at 16 kHz, or msgpack {"type": "Audio", "pcm_bytes": ...}
            at the end "END" or "MARKER", or msgpack {"type": "Marker"}
    server  {"text": new words, "timestamp": clock, "audio_timestamp": seconds, "is_final": false}
            {"text": all of the segment, ..., "is_final": true, "segment_text", "segment_start_time", ...}
            the end, back in the form it came in: END, or {"type": "Marker", "id": -1}

Answers are JSON texts until the client says something in msgpack.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from typing import Any

import msgspec
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from conure.audio.formats import AudioFormat
from conure.errors import Busy, ConureError
from conure.service.events import LAST, Event, Failed, Final, Marker, Partial
from conure.service.live import LiveService, LiveStream, Wanted

__all__ = ["marker_socket"]

ENDS = ("END", "MARKER")
MAP_OF_SOME = range(0x81, 0x90)
"""First bytes of a small map in msgpack."""
TRY_AGAIN = 1013


def marker_socket(live: LiveService) -> APIRouter:
    router = APIRouter()
    numbers = itertools.count(1)

    @router.websocket("/ws")
    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        try:
            opened = live.open(Wanted(), AudioFormat())
        except ConureError as error:
            await socket.send_json({"type": "Error", "code": error.code, "message": error.message})
            await socket.close(TRY_AGAIN if isinstance(error, Busy) else 1011)
            return
        await socket.send_json({"type": "Ready", "id": next(numbers)})
        await _Connection(socket, live, opened).serve()

    return router


class _Connection:
    def __init__(self, socket: WebSocket, live: LiveService, stream: LiveStream) -> None:
        self._socket, self._live, self._stream = socket, live, stream
        self._packed = False
        self._endings: list[Any] = []
        """What the client said for each end that it was not answered yet."""
        self._text = ""
        """Of the utterance so far, as the client has it."""

    async def serve(self) -> None:
        self._live.attach(self._stream)
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read())
                await self._tell()
                reading.cancel()
                with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                    await self._socket.close()
        except* WebSocketDisconnect:
            pass
        finally:
            self._live.forget(self._stream)  # nobody can come back to it

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            text, data = message.get("text"), message.get("bytes")
            if text is not None and text.strip() in ENDS:
                self._finalize(text.strip())
            elif data is not None:
                await self._take(data)

    async def _take(self, data: bytes) -> None:
        packed = _unpacked(data)
        if packed is None:
            await self._stream.feed(data)
            return
        self._packed = True
        if packed["type"] == "Marker":
            self._finalize({"type": "Marker", "id": -1})
        elif isinstance(packed.get("pcm_bytes"), bytes):
            await self._stream.feed(packed["pcm_bytes"])

    def _finalize(self, ending: Any) -> None:
        self._endings.append(ending)
        self._stream.finalize(len(self._endings))

    async def _tell(self) -> None:
        told = 0
        while True:
            for seq, event in await self._stream.log.take(told):
                told = seq
                rendered = self._render(event)
                if rendered is not None:
                    await self._send(rendered)
                if isinstance(event, LAST):
                    return

    def _render(self, event: Event) -> Any:
        match event:
            case Partial(_, stable, tail, _, until):
                before, self._text = self._text, stable + tail
                fresh = self._text.removeprefix(before) if self._text.startswith(before) else self._text
                return _said(fresh, until) | {"is_final": False} if fresh else None
            case Final(_, text, _, start, end):
                self._text = ""
                times = {"segment_start_time": start, "segment_end_time": end}
                return _said(text, end) | {"is_final": True, "segment_text": text} | times
            case Marker(number):
                return self._endings[number - 1]
            case Failed(code, message):
                return {"type": "Error", "code": code, "message": message}
        return None

    async def _send(self, message: Any) -> None:
        try:
            if isinstance(message, str):
                await self._socket.send_text(message)
            elif self._packed:
                await self._socket.send_bytes(msgspec.msgpack.encode(message))
            else:
                await self._socket.send_text(msgspec.json.encode(message).decode())
        except RuntimeError as error:
            raise WebSocketDisconnect from error


def _said(text: str, until: float) -> dict[str, Any]:
    return {"text": text, "timestamp": time.time(), "audio_timestamp": until}


def _unpacked(data: bytes) -> dict[str, Any] | None:
    """The message where it is one in msgpack, which PCM hardly ever is by chance."""
    if not data or data[0] not in MAP_OF_SOME or b"\xa4type" not in data:
        return None
    try:
        message = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return message if isinstance(message, dict) and message.get("type") in ("Audio", "Marker") else None
