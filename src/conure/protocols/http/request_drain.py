"""Reads the rest of a request's body before an error response.

If a connection is closed while the client still sends, it is reset, and the client loses the response. So the rest of
the body is read and dropped first, within limits. Requests with `Expect: 100-continue` get the response immediately.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["drain_refused_body"]

MAX_BYTES, MAX_SECONDS = 2**28, 10.0
FIRST_ERROR_STATUS = 400


def drain_refused_body(app: ASGIApp) -> ASGIApp:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or any(name == b"expect" for name, _ in scope["headers"]):
            await app(scope, receive, send)
            return
        body = _Body(receive)

        async def send_after_body(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= FIRST_ERROR_STATUS:
                await body.drain()
            await send(message)

        await app(scope, body.receive, send_after_body)

    return serve


class _Body:
    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_over = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_over = self._is_over or not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_SECONDS):
                while not self._is_over and size <= MAX_BYTES:
                    size += len((await self.receive()).get("body", b""))
