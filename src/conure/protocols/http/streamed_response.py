"""An answer that is sent while it is made.

It begins with its first piece, so that what goes wrong before that is refused with a status of HTTP. What fails later
is a piece, and the last one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from conure.errors import ConureError
from conure.protocols.http.uploads import cancel_on_disconnect
from conure.protocols.send_timeout import ClientTooSlow, with_send_timeout

__all__ = ["StreamedResponse"]


class StreamedResponse(Response, ABC):
    def __init__(self, held: AsyncExitStack, headers: Mapping[str, str] | None = None) -> None:
        """`held`: what is open, and closed when all is said."""
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"} | dict(headers or {}))
        del self.headers["content-length"]
        self._held = held

    @abstractmethod
    def body_parts(self) -> AsyncGenerator[bytes, None]:
        """Raises ConureError."""

    @abstractmethod
    def error_response(self, error: ConureError) -> Response:
        """The answer, where there was no piece."""

    @abstractmethod
    def error_part(self, error: ConureError) -> bytes:
        """The last piece."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            with suppress(ClientDisconnect, ClientTooSlow):
                await cancel_on_disconnect(Request(scope, receive), self._serve(scope, receive, send))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False
        try:
            async with aclosing(self.body_parts()) as pieces:
                async for piece in pieces:
                    if not has_begun:
                        has_begun = True
                        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                        await with_send_timeout(send(start))
                    await with_send_timeout(send(_body(piece, more=True)))
        except ConureError as error:
            if not has_begun:
                await self.error_response(error)(scope, receive, send)
                return
            await with_send_timeout(send(_body(self.error_part(error), more=True)))
        await with_send_timeout(send(_body(b"", more=False)))


def _body(piece: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": piece, "more_body": more}
