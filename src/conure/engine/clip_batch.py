"""Clips that are transcribed together, slice by slice, for as long as somebody waits for one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conure.decoding.hypothesis import EmittedToken
from conure.engine.clips import transcribe_batch
from conure.engine.messages import Samples
from conure.engine.pace import Pace
from conure.engine.runner import Runner
from conure.models.slices import Slices

__all__ = ["ClipBatch", "seconds_of"]

RATE = 16_000


def seconds_of(samples: int) -> int:
    """Whole ones, at least one: the size of the work."""
    return max(1, round(samples / RATE))


@dataclass(slots=True)
class ClipBatch:
    clips: dict[int, Samples]
    wanted: set[int]
    """Those that somebody still waits for."""
    slices: Slices[list[list[EmittedToken]]]
    pace: Pace
    begun: bool = False

    @staticmethod
    def of(runner: Runner, clips: Mapping[int, Samples], prompt: int | None) -> ClipBatch:
        """Nothing is computed yet."""
        slices = transcribe_batch(runner, list(clips.values()), prompt)
        return ClipBatch(dict(clips), set(clips), slices, Pace(runner.heads.device))

    @property
    def seconds(self) -> int:
        """Audio in it, padding counted."""
        return seconds_of(max(map(len, self.clips.values())) * len(self.clips))

    def run(self) -> dict[int, list[EmittedToken]] | None:
        """One slice; after the last one the tokens of all clips that are still wanted."""
        self.begun = True
        try:
            next(self.slices)
        except StopIteration as end:
            found = zip(self.clips, end.value, strict=True)
            return {number: tokens for number, tokens in found if number in self.wanted}
        self.pace.step()
        return None

    def forget(self, number: int) -> bool:
        """Whether anybody still waits for the others; if not, it is given up."""
        self.wanted.discard(number)
        if not self.wanted:
            self.slices.close()
        return bool(self.wanted)
