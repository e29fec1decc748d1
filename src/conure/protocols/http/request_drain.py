"""Whoever is refused is heard to the end first.

A connection that is closed while its client still sends is reset, and what it was told is lost on the way. So the rest
of a body is read and dropped before a refusal, in bounds. Who asks first whether to send it is told at once.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["drain_refused_body"]

MOST_BYTES, MOST_SECONDS = 2**28, 10.0
REFUSAL = 400
"""From this status on."""


def drain_refused_body(app: ASGIApp) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or any(name == b"expect" for name, _ in scope["headers"]):
            await app(scope, receive, send)
            return
        body = _Body(receive)

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= REFUSAL:
                await body.pass_over()
            await send(message)

        await app(scope, body.receive, tell)

    return answer


class _Body:
    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_over = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_over = self._is_over or not message.get("more_body", False)
        return message

    async def pass_over(self) -> None:
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOST_SECONDS):
                while not self._is_over and size <= MOST_BYTES:
                    size += len((await self.receive()).get("body", b""))
