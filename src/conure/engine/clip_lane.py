"""Clips of one model that wait to be transcribed, and the batches that are being worked on, slice by slice.

Urgent clips have a batch of their own: it is not kept waiting by one of others that was begun before.
"""

from __future__ import annotations

from dataclasses import dataclass

from conure.decoding.hypothesis import EmittedToken
from conure.engine.clip_batch import ClipBatch
from conure.engine.clips import BATCH_SECONDS
from conure.engine.messages import Answer, Cancelled, Clip, Finished, Heard, Samples
from conure.engine.runner import Runner
from conure.engine.scheduler import ClipWork

__all__ = ["ClipLane"]

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
    def __init__(self, runner: Runner, batch_seconds: float = BATCH_SECONDS) -> None:
        self.runner = runner
        self.batch_seconds = batch_seconds
        self._waiting: dict[int, _Waiting] = {}
        self._running: dict[bool, _Running] = {}
        """The urgent batch and the other one."""

    def __len__(self) -> int:
        """Clips that somebody waits for."""
        return len(self._waiting) + sum(len(running.batch.wanted) for running in self._running.values())

    def submit(self, clip: Clip, now: float) -> None:
        self._waiting[clip.stream] = _Waiting(clip, now)

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
        return [answer for number, tokens in found.items() for answer in _tell(number, batch.clips[number], tokens)]

    def _form(self, waiting: list[_Waiting]) -> _Running:
        """The clip that has waited longest, and of the same language the longest of those that are no longer."""
        oldest = min(waiting, key=lambda one: one.since)
        length, prompt = len(oldest.clip.samples), oldest.clip.prompt
        room = int(self.batch_seconds * RATE) // max(length, 1)
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
        return _Running(ClipBatch.of(self.runner, clips, prompt), oldest)


def _tell(number: int, samples: Samples, tokens: list[EmittedToken]) -> list[Answer]:
    seconds = len(samples) / RATE
    return [Heard(number, tuple(token.timed(end=seconds) for token in tokens), seconds), Finished(number)]
