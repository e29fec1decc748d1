"""`/v1/realtime` over WebSocket: who comes, in which dialect, and what goes back and forth."""

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

SPOKEN = ("realtime", "openai-realtime")
"""Subprotocols; the first that a client offers is taken."""
DENIAL = "websocket.http.response"
BAD_REQUEST = 1008

_encode = msgspec.json.Encoder().encode


def realtime_socket(behind: Services) -> APIRouter:
    router = APIRouter()

    @router.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        secret = read_credential(socket.headers, socket.query_params)
        connection = _Connection(socket)
        try:
            opened = behind.secrets.verify(secret)
            caller = behind.access.caller_named(opened.caller) if opened else behind.access.identify(secret)
            conversation = RealtimeConnection(behind.live, caller, _dialect(socket), connection.say)
            conversation.configure([*([opened.session] if opened else []), *_asked(socket)])
        except ConureError as error:
            await _deny(socket, error)
        else:
            await connection.serve(conversation)

    return router


def _dialect(socket: WebSocket) -> Dialect:
    """As the address says it, or by what only one of them offers. Raises BadOption."""
    if (named := socket.query_params.get("dialect")) is not None:
        known: tuple[Dialect, ...] = get_args(Dialect)
        for dialect in known:
            if named == dialect:
                return dialect
        raise BadOption(f"dialect {named!r} is not known", f"it is one of {', '.join(known)}")
    offered = offered_subprotocols(socket.headers)
    if any(name.startswith("realtime-token.") for name in offered):
        return "nim"
    if "openai-realtime" in offered:
        return "responses"
    is_flat = "realtime=v1" in socket.headers.get("openai-beta", "") or "openai-beta.realtime-v1" in offered
    return "flat" if is_flat else "openai"


def _asked(socket: WebSocket) -> list[dict[str, Any]]:
    model = socket.query_params.get("model")
    return [{"input_audio_transcription": {"model": model}}] if model else []


async def _deny(socket: WebSocket, error: ConureError) -> None:
    """Before it is a WebSocket, where the web server can do that."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        failure = error_code_for(error)
        if DENIAL in socket.scope.get("extensions", {}):
            await socket.send_denial_response(JSONResponse({"error": error_body(error)}, failure.http))
        else:
            await socket.close(failure.close, close_reason(error.message))


class _Connection:
    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def serve(self, conversation: RealtimeConnection) -> None:
        offered = offered_subprotocols(self._socket.headers)
        code = BAD_REQUEST
        try:
            await self._socket.accept(next((name for name in offered if name in SPOKEN), None))
            await conversation.send_greeting()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(conversation.send_events())
                tasks.create_task(self._read(conversation))
        except* WebSocketDisconnect:
            pass
        except* ClientTooSlow:
            conversation.disconnect(CLIENT_TOO_SLOW)
        except* ConnectionOver as over:
            code = _code(over)
        finally:
            conversation.disconnect()
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, ClientTooSlow):
            await with_send_timeout(self._socket.close(code))

    async def say(self, message: Message) -> None:
        try:
            await with_send_timeout(self._socket.send_text(_encode(message).decode()))
        except RuntimeError as error:
            raise WebSocketDisconnect from error

    async def _read(self, conversation: RealtimeConnection) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            text, audio = message.get("text") or "", message.get("bytes")
            try:
                said = client_event(text) if audio is None else ClientEvent(APPEND, audio=audio)
            except BadClientEvent as fault:
                await conversation.send_error(fault, read_event_id(text))
            else:
                await conversation.handle_event(said)


def _code(over: BaseExceptionGroup[ConnectionOver]) -> int:
    first: BaseException = over
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    assert isinstance(first, ConnectionOver)
    return first.code
