"""A live WebSocket connection: the part that both protocol versions share.

handshake ── rejected ──> an HTTP error response in Deepgram's format
    └── streams opened ──> binary messages are audio, text messages go to the dialect; the dialect renders events
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from fastapi import WebSocket, WebSocketDisconnect

from conure.audio.formats import AudioFormat
from conure.errors import ConureError
from conure.event_loop import suspended_seconds
from conure.protocols.deepgram.errors import REQUEST_ID, close_code_and_reason, error_response
from conure.protocols.deepgram.query import DeepgramQuery
from conure.protocols.http.credentials import offered_subprotocols, read_credential
from conure.protocols.http.uvicorn_websocket import DIRECT_AUDIO, SET_RECEIVER
from conure.protocols.send_timeout import CLIENT_TOO_SLOW, ClientTooSlow, with_send_timeout
from conure.protocols.services import Services
from conure.safe_text import header_names
from conure.service.channel_streams import ChannelStreams
from conure.service.events import TERMINAL_EVENTS, Event, Failed, Finished
from conure.service.live_service import StreamRequest

__all__ = ["IGNORED", "LiveParams", "Dialect", "Message", "ConnectionOver", "serve"]

IGNORED = "Conure-Ignored"
"""Response header that lists the given parameters without effect."""
SCHEMES = ("token", "bearer")
"""Subprotocols that precede an API key; the offered one must be accepted."""

Message = dict[str, Any]


@dataclass(frozen=True)
class LiveParams:
    """The parameters of a live connection, parsed from its query."""

    request: StreamRequest
    audio: AudioFormat
    channels: int = 1
    """Channels that are transcribed separately."""
    ignored: Sequence[str] = ()


class Dialect(Protocol):
    """One version of the protocol. Its methods return the messages to send, in order."""

    idle: float
    """Seconds without audio or a message after which the connection is closed as idle."""

    def render_greeting(self) -> Iterable[Message]: ...

    def on_audio(self, data: bytes) -> None:
        """Called for each received audio packet."""
        ...

    async def handle_message(self, text: str) -> Iterable[Message]:
        """Returns the responses to a text message. Raises ConnectionOver to close the connection."""
        ...

    def render_event(self, channel: int, event: Event) -> Iterable[Message]:
        """Renders an event of one channel, its terminal event included."""
        ...

    def render_end(self) -> Iterable[Message]:
        """Renders what is sent when all channels have finished."""
        ...

    def render_failure(self, failed: Failed) -> Iterable[Message]: ...


class ConnectionOver(Exception):
    """Raised to close the connection with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


async def serve(
    socket: WebSocket,
    services: Services,
    parse_params: Callable[[DeepgramQuery], LiveParams],
    create_dialect: Callable[[LiveParams, ChannelStreams, str], Dialect],
) -> None:
    """Serves a connection from handshake to close. An error before the upgrade is returned as an HTTP response."""
    request_id = str(uuid.uuid4())
    try:
        caller = services.access.identify(read_credential(socket.headers, socket.query_params))
        params = parse_params(DeepgramQuery(socket.query_params.multi_items()))
        streams = await ChannelStreams.open(services.live, params.request, params.audio, caller, params.channels)
    except ConureError as error:
        await socket.send_denial_response(error_response(error, request_id))
        return
    for stream in streams.streams:
        stream.log_info("belongs to request %s", request_id)
    connection = _Connection(socket, streams, create_dialect(params, streams, request_id))
    headers = {REQUEST_ID: request_id} | ({IGNORED: header_names(params.ignored)} if params.ignored else {})
    await connection.serve(headers)


class _Connection:
    def __init__(self, socket: WebSocket, streams: ChannelStreams, dialect: Dialect) -> None:
        self._socket, self._streams, self._dialect = socket, streams, dialect
        self._active_at: float | None = time.monotonic()
        """Time of the last message; None while a received message is being processed."""

    async def serve(self, headers: dict[str, str]) -> None:
        try:
            await self._accept(headers)
            async with asyncio.TaskGroup() as tasks:
                background_tasks = [tasks.create_task(self._receive()), tasks.create_task(self._close_when_idle())]
                await self._send_events()
                for task in background_tasks:
                    task.cancel()
            await self._close(1000, "")
        except* (WebSocketDisconnect, ClientTooSlow):
            pass
        except* ConnectionOver as group:
            closing = next(_leaves(group))
            await self._close(closing.code, closing.reason)
        finally:
            self._streams.cancel()

    async def _accept(self, headers: dict[str, str]) -> None:
        subprotocol = next(
            (name for name in offered_subprotocols(self._socket.headers) if name.lower() in SCHEMES), None
        )
        raw_headers = [(name.lower().encode(), value.encode("ascii")) for name, value in headers.items()]
        await self._send(self._socket.accept(subprotocol, raw_headers))
        await self._send_all(self._dialect.render_greeting())
        if direct_audio := self._socket.scope.get("extensions", {}).get(DIRECT_AUDIO):
            direct_audio[SET_RECEIVER](self._push_audio_now)

    async def _receive(self) -> None:
        while True:
            self._active_at = time.monotonic()
            message = await self._socket.receive()
            self._active_at = None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            if self._streams.is_closing:
                continue  # reading goes on only to detect a disconnect
            if message.get("text") is not None:
                await self._send_all(await self._dialect.handle_message(message["text"]))
            else:
                await self._push_audio(message["bytes"])

    async def _push_audio(self, data: bytes) -> None:
        """Pushes audio to the streams; an empty packet ends the input."""
        if not data:
            await self._streams.close()
            return
        self._dialect.on_audio(data)
        await self._streams.push_audio(data)

    def _push_audio_now(self, data: bytes) -> bool:
        """Fast path: pushes audio synchronously. Returns False if the caller must use the ordinary path."""
        if not data or not self._streams.push_audio_now(data):
            return False
        self._dialect.on_audio(data)
        self._active_at = time.monotonic()
        return True

    async def _close_when_idle(self) -> None:
        """Closes the connection when the client is idle."""
        limit = self._dialect.idle
        while True:
            self._reset_idle_timer()
            idle_seconds = (
                0.0 if self._active_at is None or self._streams.is_closing else time.monotonic() - self._active_at
            )
            if idle_seconds >= limit:
                message = f"neither audio nor a message for {limit:g} s"
                raise ConnectionOver(
                    *close_code_and_reason(Failed("idle", message, 'send audio, or {"type": "KeepAlive"}'))
                )
            due = time.monotonic() + limit - idle_seconds
            await asyncio.sleep(limit - idle_seconds)
            if suspended_seconds(due, now := time.monotonic()) and self._active_at is not None:
                self._active_at = now  # the event loop was stalled: messages may wait in the socket

    def _reset_idle_timer(self) -> None:
        """Restarts the idle timer while there is a backlog of audio: the client may wait for it silently."""
        if self._active_at is not None and self._streams.has_backlog:
            self._active_at = time.monotonic()

    async def _send_events(self) -> None:
        async for channel, event in self._streams.events():
            self._reset_idle_timer()
            await self._send_all(self._dialect.render_event(channel, event))
            if isinstance(event, Failed):
                await self._send_all(self._dialect.render_failure(event))
                raise ConnectionOver(*close_code_and_reason(event))
            if isinstance(event, TERMINAL_EVENTS) and not isinstance(event, Finished):
                raise WebSocketDisconnect  # the stream was cancelled: the client is gone
        await self._send_all(self._dialect.render_end())

    async def _send_all(self, messages: Iterable[Message]) -> None:
        for message in messages:
            await self._send(self._socket.send_text(msgspec.json.encode(message).decode()))

    async def _send(self, operation: Awaitable[None]) -> None:
        try:
            await with_send_timeout(operation)
        except ClientTooSlow:
            self._streams.stop(CLIENT_TOO_SLOW)
            raise
        except RuntimeError as error:  # the socket was closed meanwhile
            raise WebSocketDisconnect from error

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, ClientTooSlow):
            await with_send_timeout(self._socket.close(code, reason))


def _leaves(group: BaseExceptionGroup[ConnectionOver]) -> Iterator[ConnectionOver]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
