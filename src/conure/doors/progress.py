"""How far a transcription is, while it is made: lines of JSON, the last of them the transcript or why there is none.

    {"type": "progress", "seconds": 61.2, "of": 180.0}      `of`: as the recording tells it, or null
    {"type": "transcript", "text": ..., as without `stream`}
    {"type": "error", "code", "message", "hint", "retry_after"}

What can be told before the first line is told as HTTP has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

import msgspec
from fastapi import Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from conure.doors.refusing import fields_of, refused
from conure.doors.sending import TooSlow, in_time
from conure.doors.uploads import while_there
from conure.errors import ConureError
from conure.service.files import Progress
from conure.text.fields import as_dict
from conure.types import Transcript

__all__ = ["ProgressStream"]

Transcribe = Callable[[Progress], Coroutine[Any, Any, Transcript]]


class ProgressStream(Response):
    media_type = "application/x-ndjson"

    def __init__(self, held: AsyncExitStack, transcribe: Transcribe) -> None:
        """`held`: the recording, let go at the end."""
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._held = held
        self._transcribe = transcribe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            with suppress(ClientDisconnect, TooSlow):
                await while_there(Request(scope, receive), _Telling(self, scope, receive, send).tell(self._transcribe))


class _Telling:
    def __init__(self, answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
        self._answer, self._scope, self._receive, self._send = answer, scope, receive, send
        self._has_begun = False
        self._reached: tuple[float, float | None] | None = None
        """What was not told yet; only the last of it matters."""
        self._news = asyncio.Event()

    async def tell(self, transcribe: Transcribe) -> None:
        working = asyncio.create_task(transcribe(self._take))
        working.add_done_callback(lambda _: self._news.set())
        try:
            await self._follow(working)
            try:
                found = working.result()
            except ConureError as error:
                await self._refuse(error)
            else:
                await self._line({"type": "transcript"} | as_dict(found) | {"problems": list(found.problems)})
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        await in_time(self._send({"type": "http.response.body", "body": b"", "more_body": False}))

    def _take(self, seconds: float, of: float | None) -> None:
        self._reached = seconds, of
        self._news.set()

    async def _follow(self, working: asyncio.Task[Transcript]) -> None:
        is_done = False
        while not is_done:
            await self._news.wait()
            self._news.clear()
            is_done = working.done()
            if self._reached:
                (seconds, of), self._reached = self._reached, None
                await self._line({"type": "progress", "seconds": round(seconds, 3), "of": of})

    async def _refuse(self, error: ConureError) -> None:
        if self._has_begun:
            await self._line({"type": "error"} | fields_of(error))
            return
        start = refused(error)
        self._has_begun = True
        await in_time(
            self._send({"type": "http.response.start", "status": start.status_code, "headers": start.raw_headers})
        )
        await in_time(self._send({"type": "http.response.body", "body": start.body, "more_body": True}))

    async def _line(self, said: dict[str, Any]) -> None:
        if not self._has_begun:
            self._has_begun = True
            start = {"type": "http.response.start", "status": 200, "headers": self._answer.raw_headers}
            await in_time(self._send(start))
        line = msgspec.json.encode(said) + b"\n"
        await in_time(self._send({"type": "http.response.body", "body": line, "more_body": True}))
