"""A response whose body is sent while it is produced.

It starts with the first part of its body, so that an earlier error can still change the HTTP status. A later error is
sent as the last part.
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
    def __init__(self, resources: AsyncExitStack, headers: Mapping[str, str] | None = None) -> None:
        """`resources`: closed after the response."""
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"} | dict(headers or {}))
        del self.headers["content-length"]
        self._resources = resources

    @abstractmethod
    def body_parts(self) -> AsyncGenerator[bytes, None]:
        """Raises ConureError."""

    @abstractmethod
    def error_response(self, error: ConureError) -> Response:
        """The response for an error before the first part."""

    @abstractmethod
    def error_part(self, error: ConureError) -> bytes:
        """The last part of the body, after an error."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._resources:
            with suppress(ClientDisconnect, ClientTooSlow):
                await cancel_on_disconnect(Request(scope, receive), self._serve(scope, receive, send))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_started = False
        try:
            async with aclosing(self.body_parts()) as parts:
                async for part in parts:
                    if not is_started:
                        is_started = True
                        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                        await with_send_timeout(send(start))
                    await with_send_timeout(send(_body_message(part, more=True)))
        except ConureError as error:
            if not is_started:
                await self.error_response(error)(scope, receive, send)
                return
            await with_send_timeout(send(_body_message(self.error_part(error), more=True)))
        await with_send_timeout(send(_body_message(b"", more=False)))


def _body_message(part: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": part, "more_body": more}
