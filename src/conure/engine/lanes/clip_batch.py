"""A batch of clips that is transcribed in slices, until no client waits for any of its clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from conure.constants import SAMPLE_RATE
from conure.decoding.emitted_token import EmittedToken
from conure.engine.backends.clip_runner import ClipRunner
from conure.engine.backends.cuda.launch_throttle import LaunchThrottle
from conure.engine.lanes.clips import transcribe_batch
from conure.engine.messages import Failed, Samples
from conure.errors import OutOfMemory
from conure.models.preemptible import Preemptible

__all__ = ["ClipBatch", "seconds_of"]


def seconds_of(samples: int) -> int:
    """Rounded, at least 1: the size of the work."""
    return max(1, round(samples / SAMPLE_RATE))


@dataclass(slots=True)
class ClipBatch:
    clips: dict[int, Samples]
    wanted: set[int]
    """Clips that were not dropped."""
    slices: Preemptible[list[list[EmittedToken] | OutOfMemory]]
    throttle: LaunchThrottle
    has_started: bool = False
    failed: list[Failed] = field(default_factory=list)
    """Set after the last slice: the clips that did not fit the memory."""

    @staticmethod
    def start(
        runner: ClipRunner,
        clips: Mapping[int, Samples],
        prompt: int | None,
        on_out_of_memory: Callable[[float], None] | None = None,
    ) -> ClipBatch:
        """Computes nothing yet."""
        slices = transcribe_batch(runner, list(clips.values()), prompt, on_out_of_memory)
        return ClipBatch(dict(clips), set(clips), slices, LaunchThrottle(runner.device))

    @property
    def seconds(self) -> int:
        """Audio in the batch, padding counted."""
        return seconds_of(max(map(len, self.clips.values())) * len(self.clips))

    def run(self) -> dict[int, list[EmittedToken]] | None:
        """Runs one slice; after the last one returns the tokens of all wanted clips that did not fail."""
        self.has_started = True
        try:
            next(self.slices)
        except StopIteration as end:
            results = [pair for pair in zip(self.clips, end.value, strict=True) if pair[0] in self.wanted]
            self.failed = [
                Failed(number, error.code, error.message, error.hint)
                for number, error in results
                if isinstance(error, OutOfMemory)
            ]
            return {number: tokens for number, tokens in results if not isinstance(tokens, OutOfMemory)}
        self.throttle.wait()
        return None

    def drop(self, number: int) -> bool:
        """Drops a clip; False when none is left, and the batch is abandoned."""
        self.wanted.discard(number)
        if not self.wanted:
            self.slices.close()
        return bool(self.wanted)
