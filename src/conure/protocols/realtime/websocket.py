"""WebSocket `/v1/realtime`: authentication, choice of the dialect, and the message loop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, get_args

import msgspec
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse

from conure.errors import BadOption, ConureError
from conure.protocols.error_codes import error_code_for
from conure.protocols.http.credentials import offered_subprotocols, read_credential
from conure.protocols.realtime.connection import ConnectionOver, Dialect, RealtimeConnection
from conure.protocols.realtime.messages import (
    APPEND,
    BadClientEvent,
    ClientEvent,
    Message,
    client_event,
    error_body,
    read_event_id,
)
from conure.protocols.send_timeout import CLIENT_TOO_SLOW, ClientTooSlow, with_send_timeout
from conure.protocols.services import Services
from conure.safe_text import close_reason

__all__ = ["realtime_socket"]

SUBPROTOCOLS = ("realtime", "openai-realtime")
"""Supported subprotocols; the first offered one is accepted."""
DENIAL_EXTENSION = "websocket.http.response"
POLICY_VIOLATION = 1008

_encode = msgspec.json.Encoder().encode


def realtime_socket(services: Services) -> APIRouter:
    router = APIRouter()

    @router.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        secret = read_credential(socket.headers, socket.query_params)
        transport = _Transport(socket)
        try:
            claims = services.secrets.verify(secret)
            caller = services.access.caller_named(claims.caller) if claims else services.access.identify(secret)
            connection = RealtimeConnection(services.live, caller, _dialect(socket), transport.send)
            connection.configure([*([claims.session] if claims else []), *_initial_changes(socket)])
        except ConureError as error:
            await _reject(socket, error)
        else:
            await transport.serve(connection)

    return router


def _dialect(socket: WebSocket) -> Dialect:
    """Chooses by query parameter, or by headers that only one dialect uses. Raises BadOption."""
    if (requested := socket.query_params.get("dialect")) is not None:
        known: tuple[Dialect, ...] = get_args(Dialect)
        for dialect in known:
            if requested == dialect:
                return dialect
        raise BadOption(f"unknown dialect {requested!r}", f"use one of {', '.join(known)}")
    offered = offered_subprotocols(socket.headers)
    if any(name.startswith("realtime-token.") for name in offered):
        return "nim"
    if "openai-realtime" in offered:
        return "responses"
    is_flat = "realtime=v1" in socket.headers.get("openai-beta", "") or "openai-beta.realtime-v1" in offered
    return "flat" if is_flat else "openai"


def _initial_changes(socket: WebSocket) -> list[dict[str, Any]]:
    model = socket.query_params.get("model")
    return [{"input_audio_transcription": {"model": model}}] if model else []


async def _reject(socket: WebSocket, error: ConureError) -> None:
    """Rejects the handshake with an HTTP response if the web server supports that."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        error_code = error_code_for(error)
        if DENIAL_EXTENSION in socket.scope.get("extensions", {}):
            await socket.send_denial_response(JSONResponse({"error": error_body(error)}, error_code.http))
        else:
            await socket.close(error_code.close, close_reason(error.message))


class _Transport:
    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def serve(self, connection: RealtimeConnection) -> None:
        offered = offered_subprotocols(self._socket.headers)
        code = POLICY_VIOLATION
        try:
            await self._socket.accept(next((name for name in offered if name in SUBPROTOCOLS), None))
            await connection.send_greeting()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(connection.send_events())
                tasks.create_task(self._receive(connection))
        except* WebSocketDisconnect:
            pass
        except* ClientTooSlow:
            connection.disconnect(CLIENT_TOO_SLOW)
        except* ConnectionOver as group:
            code = _close_code(group)
        finally:
            connection.disconnect()
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, ClientTooSlow):
            await with_send_timeout(self._socket.close(code))

    async def send(self, message: Message) -> None:
        try:
            await with_send_timeout(self._socket.send_text(_encode(message).decode()))
        except RuntimeError as error:
            raise WebSocketDisconnect from error

    async def _receive(self, connection: RealtimeConnection) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            text, audio = message.get("text") or "", message.get("bytes")
            try:
                event = client_event(text) if audio is None else ClientEvent(APPEND, audio=audio)
            except BadClientEvent as error:
                await connection.send_error(error, read_event_id(text))
            else:
                await connection.handle_event(event)


def _close_code(group: BaseExceptionGroup[ConnectionOver]) -> int:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    assert isinstance(first, ConnectionOver)
    return first.code
