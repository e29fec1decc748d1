"""One live WebSocket, whichever version of the protocol is spoken over it.

handshake ── refused ──> HTTP, as Deepgram's clients read it
    └── streams opened ──> binary audio in, texts to the dialect; events through the dialect out
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
from conure.event_loop import held_up
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
"""A header with the parameters that were given and have no effect."""
SCHEMES = ("token", "bearer")
"""Subprotocols, of which one has to be accepted where the key comes after it."""

Message = dict[str, Any]


@dataclass(frozen=True)
class LiveParams:
    """By the query."""

    request: StreamRequest
    audio: AudioFormat
    channels: int = 1
    """That are told apart."""
    ignored: Sequence[str] = ()


class Dialect(Protocol):
    """What one version of the protocol says. Messages are told in their order."""

    idle: float
    """Seconds without a word or audio after which a client is taken for gone."""

    def render_greeting(self) -> Iterable[Message]: ...

    def on_audio(self, data: bytes) -> None:
        """Audio came; called for each packet."""
        ...

    async def handle_message(self, text: str) -> Iterable[Message]:
        """Answers what a client says. Raises Over where it cannot go on."""
        ...

    def render_event(self, channel: int, event: Event) -> Iterable[Message]:
        """Of an event that is not the last one of all channels, or is."""
        ...

    def render_end(self) -> Iterable[Message]:
        """When all channels have finished."""
        ...

    def render_failure(self, failed: Failed) -> Iterable[Message]: ...


class ConnectionOver(Exception):
    """The connection is to be closed."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


async def serve(
    socket: WebSocket,
    behind: Services,
    ask: Callable[[DeepgramQuery], LiveParams],
    speak: Callable[[LiveParams, ChannelStreams, str], Dialect],
) -> None:
    """From the handshake to the end. A client that is refused hears why before there is a WebSocket."""
    request_id = str(uuid.uuid4())
    try:
        caller = behind.access.identify(read_credential(socket.headers, socket.query_params))
        asked = ask(DeepgramQuery(socket.query_params.multi_items()))
        streams = await ChannelStreams.open(behind.live, asked.request, asked.audio, caller, asked.channels)
    except ConureError as error:
        await socket.send_denial_response(error_response(error, request_id))
        return
    for stream in streams.streams:
        stream.log_info("is of request %s", request_id)
    connection = _Connection(socket, streams, speak(asked, streams, request_id))
    headers = {REQUEST_ID: request_id} | ({IGNORED: header_names(asked.ignored)} if asked.ignored else {})
    await connection.serve(headers)


class _Connection:
    def __init__(self, socket: WebSocket, streams: ChannelStreams, dialect: Dialect) -> None:
        self._socket, self._streams, self._dialect = socket, streams, dialect
        self._heard: float | None = time.monotonic()
        """When the client was heard last; None while it is waited for nothing of it."""

    async def serve(self, headers: dict[str, str]) -> None:
        try:
            await self._accept(headers)
            async with asyncio.TaskGroup() as tasks:
                beside = [tasks.create_task(self._read()), tasks.create_task(self._watch())]
                await self._tell()
                for task in beside:
                    task.cancel()
            await self._close(1000, "")
        except* (WebSocketDisconnect, ClientTooSlow):
            pass
        except* ConnectionOver as group:
            over = next(_leaves(group))
            await self._close(over.code, over.reason)
        finally:
            self._streams.cancel()

    async def _accept(self, headers: dict[str, str]) -> None:
        chosen = next((name for name in offered_subprotocols(self._socket.headers) if name.lower() in SCHEMES), None)
        raw = [(name.lower().encode(), value.encode("ascii")) for name, value in headers.items()]
        await self._sent(self._socket.accept(chosen, raw))
        await self._say(self._dialect.render_greeting())
        if direct := self._socket.scope.get("extensions", {}).get(DIRECT_AUDIO):
            direct[SET_RECEIVER](self._take)

    async def _read(self) -> None:
        while True:
            self._heard = time.monotonic()
            message = await self._socket.receive()
            self._heard = None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            if self._streams.is_closing:
                continue  # it is read only to know whether the client is still there
            if message.get("text") is not None:
                await self._say(await self._dialect.handle_message(message["text"]))
            else:
                await self._feed(message["bytes"])

    async def _feed(self, data: bytes) -> None:
        """An empty packet says that it was all."""
        if not data:
            await self._streams.close()
            return
        self._dialect.on_audio(data)
        await self._streams.push_audio(data)

    def _take(self, data: bytes) -> bool:
        """Audio the short way."""
        if not data or not self._streams.push_audio_now(data):
            return False
        self._dialect.on_audio(data)
        self._heard = time.monotonic()
        return True

    async def _watch(self) -> None:
        """Whether the client is still there."""
        limit = self._dialect.idle
        while True:
            self._forgive()
            silent = 0.0 if self._heard is None or self._streams.is_closing else time.monotonic() - self._heard
            if silent >= limit:
                fault = f"neither audio nor a message for {limit:g} s"
                raise ConnectionOver(
                    *close_code_and_reason(Failed("idle", fault, 'send audio, or {"type": "KeepAlive"}'))
                )
            due = time.monotonic() + limit - silent
            await asyncio.sleep(limit - silent)
            if held_up(due, now := time.monotonic()) and self._heard is not None:
                self._heard = now  # what it has said meanwhile is still to be read

    def _forgive(self) -> None:
        """A client whose audio is still to be heard need say nothing."""
        if self._heard is not None and self._streams.has_backlog:
            self._heard = time.monotonic()

    async def _tell(self) -> None:
        async for channel, event in self._streams.events():
            self._forgive()
            await self._say(self._dialect.render_event(channel, event))
            if isinstance(event, Failed):
                await self._say(self._dialect.render_failure(event))
                raise ConnectionOver(*close_code_and_reason(event))
            if isinstance(event, TERMINAL_EVENTS) and not isinstance(event, Finished):
                raise WebSocketDisconnect  # it was cancelled: nobody is there
        await self._say(self._dialect.render_end())

    async def _say(self, messages: Iterable[Message]) -> None:
        for message in messages:
            await self._sent(self._socket.send_text(msgspec.json.encode(message).decode()))

    async def _sent(self, sending: Awaitable[None]) -> None:
        try:
            await with_send_timeout(sending)
        except ClientTooSlow:
            self._streams.stop(CLIENT_TOO_SLOW)
            raise
        except RuntimeError as error:  # it was closed meanwhile
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
