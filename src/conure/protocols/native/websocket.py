"""The native protocol over WebSocket: `/v1/stream`, and `/` for clients that wait for a greeting.

Options of `config` may also be in the query, so that a client that only sends audio can set them: `?sample_rate=8000&
encoding=mulaw&events=true`. The key may be in a header, in a subprotocol (for browsers) or in `?api_key=`. Messages are
JSON texts and binary audio; with `?format=msgpack` they are msgpack.
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
DECODE_ERRORS = (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError)


class _Decoder(Protocol):
    def decode(self, data: Any, /) -> protocol.FromClient: ...


_from_json: msgspec.json.Decoder[protocol.FromClient] = msgspec.json.Decoder(protocol.FromClient)
_from_msgpack: msgspec.msgpack.Decoder[protocol.FromClient] = msgspec.msgpack.Decoder(protocol.FromClient)
_to_json, _to_msgpack = msgspec.json.Encoder(), msgspec.msgpack.Encoder()


def stream_socket(services: Services) -> APIRouter:
    router = APIRouter()

    numbers = services.live.identity.stream_numbers()

    @router.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        await _Connection(socket, services).serve()

    @router.websocket("/")
    async def stream_with_greeting(socket: WebSocket) -> None:
        await _Connection(socket, services).serve(next(numbers))

    return router


class _Connection:
    def __init__(self, socket: WebSocket, services: Services) -> None:
        self._socket = socket
        self._is_msgpack = False
        self._native = NativeConnection(services.live, services.access, self._send)

    async def serve(self, greeting: int | None = None) -> None:
        """`greeting`: stream id to send in a greeting, for clients that wait for it."""
        try:
            await self._socket.accept(accepted_subprotocol(self._socket.headers))
            if greeting is not None:
                await self._native.send_greeting(greeting)
            if await self._configure():
                self._enable_direct_audio()
                async with asyncio.TaskGroup() as tasks:
                    reading = tasks.create_task(self._read())
                    await self._native.send_events()
                    reading.cancel()
                await self._native.send_farewell()
            await self._close()
        except* (WebSocketDisconnect, ClientTooSlow):
            pass
        except* Exception:
            with contextlib.suppress(WebSocketDisconnect, ClientTooSlow):
                await self._native.send_error(internal_error())
            raise
        finally:
            self._native.disconnect()

    async def _configure(self) -> bool:
        """Identifies the caller and applies the query; returns False if either is invalid."""
        query = dict(self._socket.query_params)
        try:
            self._native.identify(read_credential(self._socket.headers, query))
            messages = self._parse_query(query)
        except Unauthorized as error:
            await self._native.send_error(error)
            return False
        except ValueError as error:
            await self._send_error(error)
            return False
        for message in messages:
            await self._native.handle_message(message)
        return True

    def _enable_direct_audio(self) -> None:
        """Registers the synchronous path for binary audio, if the web server has one."""
        direct = self._socket.scope.get("extensions", {}).get(DIRECT_AUDIO)
        if direct and not self._is_msgpack:
            direct[SET_RECEIVER](self._native.try_push_audio)

    async def _close(self) -> None:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await with_send_timeout(self._socket.close(self._native.close_code))

    def _parse_query(self, query: dict[str, str]) -> list[protocol.FromClient]:
        """Converts the query to messages. Raises ValueError, including msgspec's ValidationError."""
        query.pop("api_key", None)
        wire_format = query.pop("format", "json")
        if wire_format not in FORMATS:
            raise ValueError(f"format={wire_format!r}: it must be one of {', '.join(FORMATS)}")
        self._is_msgpack = wire_format == "msgpack"
        if not query:
            return []
        values = {name: _parse_value(value) for name, value in query.items()}
        unknown = values.keys() - set(protocol.Config.__struct_fields__)
        if unknown:
            known = ", ".join(protocol.Config.__struct_fields__)
            raise ValueError(f"unknown stream option {', '.join(sorted(unknown))}; known options: format, {known}")
        return [msgspec.convert({"events": False} | values, protocol.Config)]

    async def _read(self) -> None:
        while not self._native.is_over:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            for decoded in await self._decode(message.get("text"), message.get("bytes")):
                await self._native.handle_message(decoded)

    async def _decode(self, text: str | None, data: bytes | None) -> list[protocol.FromClient | bytes]:
        """A text may contain several messages, one per line; an invalid one does not affect the others."""
        if text is not None:
            lines = [line for line in text.split("\n") if line.strip()]
            return [message for line in lines for message in await self._decode_one(_from_json, line)]
        if data is not None and self._is_msgpack:
            return [*await self._decode_one(_from_msgpack, data)]
        return [] if data is None else [data]

    async def _decode_one(self, decoder: _Decoder, data: str | bytes) -> list[protocol.FromClient]:
        """The message, or an empty list after an error was sent."""
        try:
            return [decoder.decode(data)]
        except DECODE_ERRORS as error:
            await self._send_error(error)
            return []

    async def _send_error(self, error: Exception) -> None:
        hint = 'send messages of the protocol, like {"type": "audio", "data": "<base64>"}, or binary audio'
        await self._native.send_message(protocol.Error(message=one_line(f"invalid message: {error}"), hint=hint))

    async def _send(self, message: protocol.FromServer) -> None:
        try:
            if self._is_msgpack:
                await self._socket.send_bytes(_to_msgpack.encode(message))
            else:
                await self._socket.send_text(_to_json.encode(message).decode())
        except RuntimeError as error:  # the server has closed it meanwhile
            raise WebSocketDisconnect from error


def _parse_value(text: str) -> Any:
    """JSON values (numbers, true, false, null, objects) are parsed; everything else is text."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
