"""Clips that are transcribed together, slice by slice, for as long as somebody waits for one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from conure.decoding.emitted_token import EmittedToken
from conure.engine.backends.clip_runner import ClipRunner
from conure.engine.backends.cuda.launch_throttle import LaunchThrottle
from conure.engine.lanes.clips import transcribe_batch
from conure.engine.messages import Failed, Samples
from conure.errors import OutOfMemory
from conure.models.preemptible import Preemptible

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
    slices: Preemptible[list[list[EmittedToken] | OutOfMemory]]
    pace: LaunchThrottle
    begun: bool = False
    failed: list[Failed] = field(default_factory=list)
    """After the last slice: what is to be told of those that have no tokens."""

    @staticmethod
    def of(
        runner: ClipRunner,
        clips: Mapping[int, Samples],
        prompt: int | None,
        did_not_fit: Callable[[float], None] | None = None,
    ) -> ClipBatch:
        """Nothing is computed yet."""
        slices = transcribe_batch(runner, list(clips.values()), prompt, did_not_fit)
        return ClipBatch(dict(clips), set(clips), slices, LaunchThrottle(runner.device))

    @property
    def seconds(self) -> int:
        """Audio in it, padding counted."""
        return seconds_of(max(map(len, self.clips.values())) * len(self.clips))

    def run(self) -> dict[int, list[EmittedToken]] | None:
        """One slice; after the last one the tokens of all clips that are still wanted and did not fail."""
        self.begun = True
        try:
            next(self.slices)
        except StopIteration as end:
            found = [pair for pair in zip(self.clips, end.value, strict=True) if pair[0] in self.wanted]
            self.failed = [
                Failed(number, error.code, error.message, error.hint)
                for number, error in found
                if isinstance(error, OutOfMemory)
            ]
            return {number: tokens for number, tokens in found if not isinstance(tokens, OutOfMemory)}
        self.pace.wait()
        return None

    def forget(self, number: int) -> bool:
        """Whether anybody still waits for the others; if not, it is given up."""
        self.wanted.discard(number)
        if not self.wanted:
            self.slices.close()
        return bool(self.wanted)
