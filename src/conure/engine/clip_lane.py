"""Clips of one model that wait to be transcribed, and the batch of them that is being worked on, slice by slice."""

from __future__ import annotations

from dataclasses import dataclass, field

from conure.decoding.hypothesis import EmittedToken
from conure.engine.clips import BATCH_SECONDS, transcribe_batch
from conure.engine.messages import Answer, Cancelled, Finished, Heard, Samples
from conure.engine.runner import Runner
from conure.engine.scheduler import ClipWork
from conure.models.slices import Slices

__all__ = ["ClipLane"]

RATE = 16_000


@dataclass(frozen=True, slots=True)
class _Clip:
    number: int
    samples: Samples
    prompt: int | None
    since: float


@dataclass(slots=True)
class _Batch:
    clips: list[_Clip]
    slices: Slices[list[list[EmittedToken]]]
    wanted: set[int] = field(default_factory=set)
    """Those of its clips that somebody still waits for."""
    begun: bool = False

    @property
    def seconds(self) -> int:
        """Audio in it, padding counted."""
        return max(1, round(max(len(clip.samples) for clip in self.clips) * len(self.clips) / RATE))


class ClipLane:
    def __init__(self, runner: Runner, batch_seconds: float = BATCH_SECONDS) -> None:
        self.runner = runner
        self.batch_seconds = batch_seconds
        self._waiting: dict[int, _Clip] = {}
        self._batch: _Batch | None = None

    def __len__(self) -> int:
        """Clips that somebody waits for."""
        return len(self._waiting) + (len(self._batch.wanted) if self._batch else 0)

    def submit(self, number: int, samples: Samples, prompt: int | None, now: float) -> None:
        self._waiting[number] = _Clip(number, samples, prompt, now)

    def cancel(self, number: int) -> list[Answer]:
        self.drop(number)
        return [Cancelled(number)]

    def drop(self, number: int) -> None:
        """It is gone, without an answer; a batch that nobody waits for any more is given up."""
        self._waiting.pop(number, None)
        if self._batch:
            self._batch.wanted.discard(number)
            if not self._batch.wanted:
                self._batch.slices.close()
                self._batch = None

    def ready(self) -> list[ClipWork]:
        """The next slice of the batch, which is formed where there is none; its first is another kind than the rest."""
        if self._batch is None and self._waiting:
            self._batch = self._form()
        if self._batch is None:
            return []
        first = self._batch.clips[0]
        return [ClipWork(first.number, (self, self._batch.begun), self._batch.seconds, first.since)]

    def run(self) -> list[Answer]:
        """One slice."""
        batch = self._batch
        assert batch is not None
        batch.begun = True
        try:
            next(batch.slices)
        except StopIteration as end:
            self._batch = None
            return [
                answer
                for clip, tokens in zip(batch.clips, end.value, strict=True)
                if clip.number in batch.wanted
                for answer in _tell(clip, tokens)
            ]
        return []

    def _form(self) -> _Batch:
        """The clip that has waited longest, and of the same language the longest of those that are no longer."""
        oldest = min(self._waiting.values(), key=lambda clip: clip.since)
        room = int(self.batch_seconds * RATE) // max(len(oldest.samples), 1)
        mates = [
            clip
            for clip in self._waiting.values()
            if clip is not oldest and clip.prompt == oldest.prompt and len(clip.samples) <= len(oldest.samples)
        ]
        mates.sort(key=lambda clip: -len(clip.samples))
        clips = [oldest, *mates[: max(0, room - 1)]]
        for clip in clips:
            del self._waiting[clip.number]
        slices = transcribe_batch(self.runner, [clip.samples for clip in clips], oldest.prompt)
        return _Batch(clips, slices, {clip.number for clip in clips})


def _tell(clip: _Clip, tokens: list[EmittedToken]) -> list[Answer]:
    seconds = len(clip.samples) / RATE
    return [Heard(clip.number, tuple(token.timed(end=seconds) for token in tokens), seconds), Finished(clip.number)]
