"""A running transcription, and its progress updates since the last call."""

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

Update = TypeVar("Update")

UPDATE_TIMEOUT = 10.0
"""Seconds."""


class TranscriptionProgress(Generic[Update]):
    def __init__(self, transcribe: Callable[[Callable[[Update], None]], Coroutine[Any, Any, Transcript]]) -> None:
        """`transcribe` is called with the function that receives its updates."""
        self._updates: list[Update] = []
        self._changed = asyncio.Event()
        self._working = start_task(transcribe(self._add), "transcribing a recording")
        self._working.add_done_callback(lambda _: self._changed.set())

    async def next_updates(self) -> list[Update] | None:
        """Waits for updates. An empty list after `UPDATE_TIMEOUT`; None after the last update."""
        try:
            async with asyncio.timeout(UPDATE_TIMEOUT):
                await self._changed.wait()
        except TimeoutError:
            return []
        updates, self._updates = self._updates, []
        if not self._working.done():
            self._changed.clear()
        return updates or None

    def transcript(self) -> Transcript:
        """The result, after the last update. Raises ConureError for every failure."""
        try:
            return self._working.result()
        except ConureError:
            raise
        except Exception:
            log.exception("transcribing a recording failed")
            raise EngineFailed("internal server error", "see the server log") from None

    async def close(self) -> None:
        self._working.cancel()
        await asyncio.gather(self._working, return_exceptions=True)

    def _add(self, update: Update) -> None:
        self._updates.append(update)
        self._changed.set()
