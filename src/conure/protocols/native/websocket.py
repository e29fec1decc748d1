"""The native protocol over WebSocket: `/v1/stream`, and `/` for clients that wait to be greeted.

What `config` says may also be in the query, so that a client that only sends audio can choose: `?sample_rate=8000&
encoding=mulaw&events=true`. A key is where a browser or any other client can put it: in a header, a subprotocol or
`?api_key=`. Messages are JSON texts and binary audio; with `?format=msgpack` they are msgpack.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

import msgspec
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from conure.client import protocol
from conure.errors import Unauthorized
from conure.protocols.http.credentials import accepted_subprotocol, read_credential
from conure.protocols.http.uvicorn_websocket import DIRECT_AUDIO, SET_RECEIVER
from conure.protocols.internal_errors import internal_error
from conure.protocols.native.connection import NativeConnection
from conure.protocols.send_timeout import ClientTooSlow, with_send_timeout
from conure.protocols.services import Services
from conure.safe_text import one_line

__all__ = ["stream_socket"]

FORMATS = ("json", "msgpack")
NOT_UNDERSTOOD = (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError)


class _Decoder(Protocol):
    def decode(self, said: Any, /) -> protocol.FromClient: ...


_from_json: msgspec.json.Decoder[protocol.FromClient] = msgspec.json.Decoder(protocol.FromClient)
_from_msgpack: msgspec.msgpack.Decoder[protocol.FromClient] = msgspec.msgpack.Decoder(protocol.FromClient)
_to_json, _to_msgpack = msgspec.json.Encoder(), msgspec.msgpack.Encoder()


def stream_socket(behind: Services) -> APIRouter:
    router = APIRouter()

    numbers = behind.live.identity.stream_numbers()

    @router.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        await _Connection(socket, behind).serve()

    @router.websocket("/")
    async def greeted(socket: WebSocket) -> None:
        await _Connection(socket, behind).serve(next(numbers))

    return router


class _Connection:
    def __init__(self, socket: WebSocket, behind: Services) -> None:
        self._socket = socket
        self._packed = False
        self._conversation = NativeConnection(behind.live, behind.access, self._send)

    async def serve(self, greeting: int | None = None) -> None:
        """`greeting`: the number of the stream for clients that wait for it."""
        try:
            await self._socket.accept(accepted_subprotocol(self._socket.headers))
            if greeting is not None:
                await self._conversation.send_greeting(greeting)
            if await self._begin():
                self._take_directly()
                async with asyncio.TaskGroup() as tasks:
                    reading = tasks.create_task(self._read())
                    await self._conversation.send_events()
                    reading.cancel()
                await self._conversation.send_farewell()
            await self._close()
        except* (WebSocketDisconnect, ClientTooSlow):
            pass
        except* Exception:
            with contextlib.suppress(WebSocketDisconnect, ClientTooSlow):
                await self._conversation.send_error(internal_error())
            raise
        finally:
            self._conversation.disconnect()

    async def _begin(self) -> bool:
        """With who it is and what the query asks for; whether it could be met."""
        query = dict(self._socket.query_params)
        try:
            self._conversation.identify(read_credential(self._socket.headers, query))
            asked = self._asked(query)
        except Unauthorized as error:
            await self._conversation.send_error(error)
            return False
        except ValueError as error:
            await self._refuse(error)
            return False
        for message in asked:
            await self._conversation.handle_message(message)
        return True

    def _take_directly(self) -> None:
        """Binary audio, where the web server has a shorter way for it."""
        direct = self._socket.scope.get("extensions", {}).get(DIRECT_AUDIO)
        if direct and not self._packed:
            direct[SET_RECEIVER](self._conversation.try_push_audio)

    async def _close(self) -> None:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await with_send_timeout(self._socket.close(self._conversation.close_code))

    def _asked(self, query: dict[str, str]) -> list[protocol.FromClient]:
        """The query as messages. Raises ValueError, of which ValidationError is one."""
        query.pop("api_key", None)
        form = query.pop("format", "json")
        if form not in FORMATS:
            raise ValueError(f"format={form!r}: it must be one of {', '.join(FORMATS)}")
        self._packed = form == "msgpack"
        if not query:
            return []
        values = {name: _value(value) for name, value in query.items()}
        unknown = values.keys() - set(protocol.Config.__struct_fields__)
        if unknown:
            known = ", ".join(protocol.Config.__struct_fields__)
            raise ValueError(f"{', '.join(sorted(unknown))} is no option of a stream; known are: format, {known}")
        return [msgspec.convert({"events": False} | values, protocol.Config)]

    async def _read(self) -> None:
        while not self._conversation.is_over:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            for said in await self._decoded(message.get("text"), message.get("bytes")):
                await self._conversation.handle_message(said)

    async def _decoded(self, text: str | None, data: bytes | None) -> list[protocol.FromClient | bytes]:
        """A text may hold several messages, a line each; what is wrong with one is not held against the others."""
        if text is not None:
            return [said for line in text.split("\n") if line.strip() for said in await self._one(_from_json, line)]
        if data is not None and self._packed:
            return [*await self._one(_from_msgpack, data)]
        return [] if data is None else [data]

    async def _one(self, decoder: _Decoder, said: str | bytes) -> list[protocol.FromClient]:
        try:
            return [decoder.decode(said)]
        except NOT_UNDERSTOOD as error:
            await self._refuse(error)
            return []

    async def _refuse(self, error: Exception) -> None:
        hint = 'see the protocol: {"type": "audio", "data": "<base64>"}, or binary audio'
        await self._conversation.send_message(protocol.Error(message=one_line(f"not understood: {error}"), hint=hint))

    async def _send(self, message: protocol.FromServer) -> None:
        try:
            if self._packed:
                await self._socket.send_bytes(_to_msgpack.encode(message))
            else:
                await self._socket.send_text(_to_json.encode(message).decode())
        except RuntimeError as error:  # it was closed from our side meanwhile
            raise WebSocketDisconnect from error


def _value(text: str) -> Any:
    """Numbers, true, false, null and objects as in JSON; everything else is text."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
