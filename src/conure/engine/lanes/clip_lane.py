"""Clips of one model that wait to be transcribed, and the batches that are being worked on, slice by slice.

Urgent clips have a batch of their own: it is not kept waiting by one of others that was begun before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from conure.decoding.emitted_token import EmittedToken
from conure.engine.backends.clip_runner import ClipRunner
from conure.engine.lanes.clip_batch import ClipBatch
from conure.engine.lanes.clips import BATCH_SECONDS, too_long
from conure.engine.messages import Answer, Cancelled, Clip, Failed, Finished, Samples, StreamTokens
from conure.engine.scheduler import ClipWork

__all__ = ["ClipLane"]

log = logging.getLogger(__name__)

RATE = 16_000
URGENT_SECONDS = 0.5
"""After which an urgent clip should be done."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    clip: Clip
    since: float

    @property
    def due(self) -> float | None:
        return self.since + URGENT_SECONDS if self.clip.urgent else None


@dataclass(frozen=True, slots=True)
class _Running:
    batch: ClipBatch
    first: _Waiting


class ClipLane:
    def __init__(
        self,
        runner: ClipRunner,
        batch_seconds: float = BATCH_SECONDS,
        most_rows: Callable[[float], int] | None = None,
    ) -> None:
        """`most_rows` tells how many clips of so many seconds there is memory for; without it for any number."""
        self.runner = runner
        self.batch_seconds = batch_seconds
        self._most_rows = most_rows
        self._has_shrunk = False
        self._waiting: dict[int, _Waiting] = {}
        self._running: dict[bool, _Running] = {}
        """The urgent batch and the other one."""

    def __len__(self) -> int:
        """Clips that somebody waits for."""
        return len(self._waiting) + sum(len(running.batch.wanted) for running in self._running.values())

    def submit(self, clip: Clip, now: float) -> list[Answer]:
        """Failed where there can be no memory for it."""
        seconds = len(clip.samples) / RATE
        if self._most_rows and not self._most_rows(seconds):
            error = too_long(seconds)
            return [Failed(clip.stream, error.code, error.message, error.hint)]
        self._waiting[clip.stream] = _Waiting(clip, now)
        return []

    def cancel(self, number: int) -> list[Answer]:
        self.drop(number)
        return [Cancelled(number)]

    def drop(self, number: int) -> None:
        """It is gone, without an answer; a batch that nobody waits for any more is given up."""
        self._waiting.pop(number, None)
        self._running = {
            urgent: running
            for urgent, running in self._running.items()
            if number not in running.batch.wanted or running.batch.forget(number)
        }

    def ready(self) -> list[ClipWork]:
        """The next slice of each batch, which is formed where there is none; its first one is of another kind."""
        works = []
        for urgent in (True, False):
            waiting = [one for one in self._waiting.values() if one.clip.urgent == urgent]
            if urgent not in self._running and waiting:
                self._running[urgent] = self._form(waiting)
            if running := self._running.get(urgent):
                batch, first = running.batch, running.first
                kind = (self, batch.begun)
                works.append(ClipWork(first.clip.stream, kind, batch.seconds, first.since, first.due))
        return works

    def run(self, work: ClipWork) -> list[Answer]:
        """One slice."""
        urgent = work.due is not None
        batch = self._running[urgent].batch
        found = batch.run()
        if found is None:
            return []
        del self._running[urgent]
        heard = [answer for number, tokens in found.items() for answer in _tell(number, batch.clips[number], tokens)]
        return [*heard, *batch.failed]

    def _form(self, waiting: list[_Waiting]) -> _Running:
        """The clip that has waited longest, and of the same language the longest of those that are no longer."""
        oldest = min(waiting, key=lambda one: one.since)
        length, prompt = len(oldest.clip.samples), oldest.clip.prompt
        room = int(self.batch_seconds * RATE) // max(length, 1)
        if self._most_rows:
            room = min(room, self._most_rows(length / RATE))
        mates = [
            one
            for one in waiting
            if one is not oldest and one.clip.prompt == prompt and len(one.clip.samples) <= length
        ]
        mates.sort(key=lambda one: -len(one.clip.samples))
        chosen = [oldest, *mates[: max(0, room - 1)]]
        for one in chosen:
            del self._waiting[one.clip.stream]
        clips = {one.clip.stream: one.clip.samples for one in chosen}
        return _Running(ClipBatch.of(self.runner, clips, prompt, self._shrink), oldest)

    def _shrink(self, seconds: float) -> None:
        """So much did not fit: the next batches hold half of it at most."""
        self.batch_seconds = min(self.batch_seconds, seconds / 2)
        if not self._has_shrunk:
            log.warning("there was no memory for %.0f s of clips at once: batches are smaller from now on", seconds)
        self._has_shrunk = True


def _tell(number: int, samples: Samples, tokens: list[EmittedToken]) -> list[Answer]:
    seconds = len(samples) / RATE
    return [StreamTokens(number, tuple(token.to_token(end=seconds) for token in tokens), seconds), Finished(number)]
