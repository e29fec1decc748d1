"""A transcript as server-sent events while it is made.

It begins with the first words, so that a recording that cannot be transcribed is refused with a status of HTTP. What
fails later is an event, and the last one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from conure.doors.openai.errors import error_of, refused
from conure.doors.openai.log_probabilities import continued, log_probabilities
from conure.doors.openai.rendering import as_json, done, known_language
from conure.doors.openai.shapes import Delta
from conure.doors.sending import TooSlow, in_time
from conure.doors.uploads import while_there
from conure.engine.plan import ModelCard
from conure.errors import ConureError, EngineFailed
from conure.text.segments import segments_from_words
from conure.text.tokenizer import Tokenizer
from conure.types import Transcript, Word

__all__ = ["EventStream", "Transcribe"]

log = logging.getLogger(__name__)

SILENCE = 10.0
"""Seconds after which a client is told that it is still waited for, lest anybody between gives up."""
STILL_THERE = ": still transcribing\n\n"

Transcribe = Callable[[Callable[[Word], None]], Coroutine[Any, Any, Transcript]]
"""Transcribes a recording, and tells each word."""


class EventStream(Response):
    media_type = "text/event-stream"

    def __init__(
        self,
        form: AsyncExitStack,
        transcribe: Transcribe,
        card: ModelCard,
        logprobs: Tokenizer | None,
        headers: dict[str, str],
    ) -> None:
        """`form`: what is open, and closed when all is said. `logprobs`: the tokenizer where they are wanted."""
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"} | headers)
        del self.headers["content-length"]
        self._form = form
        self._transcribe = transcribe
        self._card = card
        self._logprobs = logprobs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._form:
            with suppress(ClientDisconnect, TooSlow):
                await while_there(Request(scope, receive), self._serve(scope, receive, send))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        try:
            async with aclosing(self._texts()) as texts:
                async for text in texts:
                    if not begun:
                        begun = True
                        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                        await in_time(send(start))
                    await in_time(send(_body(text, more=True)))
        except ConureError as error:
            if not begun:
                await refused(error)(scope, receive, send)
                return
            await in_time(send(_body(_event(error_of(error).model_dump_json()), more=True)))
        await in_time(send(_body("", more=False)))

    async def _texts(self) -> AsyncGenerator[str, None]:
        """A delta for each sentence of what is new; deltas together are the text of the last event."""
        before: Word | None = None
        hearing = _Hearing(self._transcribe)
        try:
            while (fresh := await hearing.fresh()) is not None:
                for segment in segments_from_words(fresh):
                    yield _event(as_json(self._delta(segment.words, before)))
                    before = segment.words[-1]
                if not fresh:
                    yield STILL_THERE
            transcript = hearing.transcript()
            yield _event(as_json(done(transcript, known_language(transcript, self._card), self._logprobs)))
        finally:
            await hearing.close()

    def _delta(self, words: tuple[Word, ...], before: Word | None) -> Delta:
        logprobs = list(log_probabilities(words, self._logprobs, before)) if self._logprobs else None
        return Delta(delta=continued(words, before), logprobs=logprobs)


class _Hearing:
    """A recording that is being transcribed, and its words since they were last asked for."""

    def __init__(self, transcribe: Transcribe) -> None:
        self._words: list[Word] = []
        self._news = asyncio.Event()
        self._working = asyncio.create_task(transcribe(self._take))
        self._working.add_done_callback(lambda _: self._news.set())

    async def fresh(self) -> list[Word] | None:
        """Waits for some; none after a long silence, None when all have come."""
        try:
            async with asyncio.timeout(SILENCE):
                await self._news.wait()
        except TimeoutError:
            return []
        fresh, self._words = self._words, []
        if not self._working.done():
            self._news.clear()
        return fresh or None

    def transcript(self) -> Transcript:
        """When all words have come. Raises ConureError for whatever went wrong."""
        try:
            return self._working.result()
        except ConureError:
            raise
        except Exception:
            log.exception("a recording could not be transcribed")
            raise EngineFailed("the server made a mistake", "its log tells which") from None

    async def close(self) -> None:
        self._working.cancel()
        await asyncio.gather(self._working, return_exceptions=True)

    def _take(self, word: Word) -> None:
        self._words.append(word)
        self._news.set()


def _event(data: str) -> str:
    return f"data: {data}\n\n"


def _body(text: str, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text.encode(), "more_body": more}
