"""Clips of one model that wait to be transcribed, and the batches in progress, which run slice by slice.

High-priority clips have a batch of their own, so they do not wait for a batch of others that has started.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from conure.constants import SAMPLE_RATE
from conure.decoding.emitted_token import EmittedToken
from conure.engine.backends.clip_runner import ClipRunner
from conure.engine.lanes.clip_batch import ClipBatch
from conure.engine.lanes.clips import BATCH_SECONDS, too_long
from conure.engine.messages import Cancelled, Clip, Failed, Finished, Samples, StreamEvent, StreamTokens
from conure.engine.scheduler import ClipWork

__all__ = ["ClipLane"]

log = logging.getLogger(__name__)

HIGH_PRIORITY_SECONDS = 0.5
"""Time until a high-priority clip is due."""


@dataclass(frozen=True, slots=True)
class _WaitingClip:
    clip: Clip
    arrived_at: float

    @property
    def due(self) -> float | None:
        return self.arrived_at + HIGH_PRIORITY_SECONDS if self.clip.high_priority else None


@dataclass(frozen=True, slots=True)
class _RunningBatch:
    batch: ClipBatch
    first: _WaitingClip


class ClipLane:
    def __init__(
        self,
        runner: ClipRunner,
        batch_seconds: float = BATCH_SECONDS,
        max_rows: Callable[[float], int] | None = None,
    ) -> None:
        """`max_rows`: how many clips of so many seconds fit the memory; None for no limit."""
        self.runner = runner
        self.batch_seconds = batch_seconds
        self._max_rows = max_rows
        self._has_shrunk = False
        self._waiting: dict[int, _WaitingClip] = {}
        self._running: dict[bool, _RunningBatch] = {}
        """By priority."""

    def __len__(self) -> int:
        """Clips that wait or are in progress."""
        return len(self._waiting) + sum(len(running.batch.wanted) for running in self._running.values())

    def submit(self, clip: Clip, now: float) -> list[StreamEvent]:
        """Emits Failed for a clip that is too long for the memory."""
        seconds = len(clip.samples) / SAMPLE_RATE
        if self._max_rows and not self._max_rows(seconds):
            error = too_long(seconds)
            return [Failed(clip.stream, error.code, error.message, error.hint)]
        self._waiting[clip.stream] = _WaitingClip(clip, now)
        return []

    def cancel(self, number: int) -> list[StreamEvent]:
        self.drop(number)
        return [Cancelled(number)]

    def drop(self, number: int) -> None:
        """Removes a clip without an event, and abandons a batch that has no other."""
        self._waiting.pop(number, None)
        self._running = {
            priority: running
            for priority, running in self._running.items()
            if number not in running.batch.wanted or running.batch.drop(number)
        }

    def ready_work(self) -> list[ClipWork]:
        """The next slice of each batch, which is formed here; a batch's first slice has its own kind of cost."""
        works = []
        for priority in (True, False):
            waiting = [entry for entry in self._waiting.values() if entry.clip.high_priority == priority]
            if priority not in self._running and waiting:
                self._running[priority] = self._form_batch(waiting)
            if running := self._running.get(priority):
                batch, first = running.batch, running.first
                kind = (self, batch.has_started)
                works.append(ClipWork(first.clip.stream, kind, batch.seconds, first.arrived_at, first.due))
        return works

    def run(self, work: ClipWork) -> list[StreamEvent]:
        """Runs one slice."""
        priority = work.due is not None
        batch = self._running[priority].batch
        tokens = batch.run()
        if tokens is None:
            return []
        del self._running[priority]
        events = [event for number in tokens for event in _finish(number, batch.clips[number], tokens[number])]
        return [*events, *batch.failed]

    def _form_batch(self, waiting: list[_WaitingClip]) -> _RunningBatch:
        """The oldest clip, with the longest clips of the same language that are not longer."""
        oldest = min(waiting, key=lambda entry: entry.arrived_at)
        length, prompt = len(oldest.clip.samples), oldest.clip.prompt
        room = int(self.batch_seconds * SAMPLE_RATE) // max(length, 1)
        if self._max_rows:
            room = min(room, self._max_rows(length / SAMPLE_RATE))
        others = [
            entry
            for entry in waiting
            if entry is not oldest and entry.clip.prompt == prompt and len(entry.clip.samples) <= length
        ]
        others.sort(key=lambda entry: -len(entry.clip.samples))
        chosen = [oldest, *others[: max(0, room - 1)]]
        for entry in chosen:
            del self._waiting[entry.clip.stream]
        clips = {entry.clip.stream: entry.clip.samples for entry in chosen}
        return _RunningBatch(ClipBatch.start(self.runner, clips, prompt, self._shrink), oldest)

    def _shrink(self, seconds: float) -> None:
        """Limits the next batches to half of what did not fit the memory."""
        self.batch_seconds = min(self.batch_seconds, seconds / 2)
        if not self._has_shrunk:
            log.warning("a batch of %.0f s of clips did not fit the memory: the next batches are smaller", seconds)
        self._has_shrunk = True


def _finish(number: int, samples: Samples, tokens: list[EmittedToken]) -> list[StreamEvent]:
    seconds = len(samples) / SAMPLE_RATE
    return [StreamTokens(number, tuple(token.to_token(end=seconds) for token in tokens), seconds), Finished(number)]
