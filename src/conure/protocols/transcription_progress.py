"""A transcript that is being made, and what was told of it since one last asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from conure.background import start_task
from conure.errors import ConureError, EngineFailed
from conure.types import Transcript

__all__ = ["TranscriptionProgress"]

log = logging.getLogger(__name__)

News = TypeVar("News")

SILENCE = 10.0


class TranscriptionProgress(Generic[News]):
    def __init__(self, transcribe: Callable[[Callable[[News], None]], Coroutine[Any, Any, Transcript]]) -> None:
        """`transcribe` is given a function that takes its news."""
        self._news: list[News] = []
        self._changed = asyncio.Event()
        self._working = start_task(transcribe(self._take), "transcribing a recording")
        self._working.add_done_callback(lambda _: self._changed.set())

    async def next_updates(self) -> list[News] | None:
        """Waits for some; none after `SILENCE`, None when all have come."""
        try:
            async with asyncio.timeout(SILENCE):
                await self._changed.wait()
        except TimeoutError:
            return []
        news, self._news = self._news, []
        if not self._working.done():
            self._changed.clear()
        return news or None

    def transcript(self) -> Transcript:
        """When all has come. Raises ConureError for whatever went wrong."""
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

    def _take(self, news: News) -> None:
        self._news.append(news)
        self._changed.set()
