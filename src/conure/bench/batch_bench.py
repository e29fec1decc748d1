"""How fast the engine alone transcribes clips: by how many share a batch, and by how long they are.

It runs in a process of its own, so that what measures loads no networks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np

from conure.bench.sample_speech import shipped, voices
from conure.engine.plan import Plan
from conure.errors import ConureError, EngineFailed

__all__ = ["LENGTH", "MANY", "Batch", "every_size", "measure_batches"]

LENGTH = 10.0
"""Seconds of a clip, where their number is what changes."""
BATCHES = (1, 2, 4, 8, 16, 32)
LENGTHS = (1, 2, 5, 10, 20, 30)
"""Seconds; a server cuts what is longer."""
MANY = 8
"""Clips of a batch, where their length is what changes; also each alone."""
ENOUGH, RUNS = 3.0, 3
"""Seconds and runs after which the best of a kind is taken."""
TOO_LONG = 10.0
"""Seconds of a run after which no more audio is tried."""


@dataclass(frozen=True)
class Batch:
    clips: int
    length: float
    """Seconds of each."""
    seconds: float
    """The least that it took."""

    @property
    def speed(self) -> float:
        """Hours of audio an hour."""
        return self.clips * self.length / self.seconds


def measure_batches(plan: Plan, sizes: Sequence[tuple[int, float]], tell: Callable[[Batch], None]) -> None:
    """Clips and seconds of each; `tell` hears of every batch when it was measured.

    What would take too long is left out. Raises what opening the model raises.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, plan, sizes), name="batches", daemon=True)
    process.start()
    theirs.close()
    try:
        for found in iter(lambda: _receive(ours), None):
            tell(found)
    except BaseException:
        process.terminate()
        raise
    finally:
        ours.close()
        process.join()


def every_size() -> list[tuple[int, float]]:
    """Both curves, the least audio first, each size once."""
    sizes = {(clips, LENGTH) for clips in BATCHES} | {
        (clips, float(length)) for length in LENGTHS for clips in (1, MANY)
    }
    return sorted(sizes, key=lambda size: size[0] * size[1])


def _receive(end: Connection) -> Batch | None:
    try:
        found: Batch | ConureError | None = end.recv()
    except EOFError:
        raise EngineFailed("the process that measures batches died", "what it wrote on stderr tells why") from None
    if isinstance(found, ConureError):
        raise found
    return found


def _work(end: Connection, plan: Plan, sizes: Sequence[tuple[int, float]]) -> None:
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        try:
            for batch in _measure(plan, sizes):
                end.send(batch)
        except ConureError as error:
            end.send(error)
        else:
            end.send(None)


def _measure(plan: Plan, sizes: Sequence[tuple[int, float]]) -> Iterator[Batch]:
    from conure.engine.backends.registry import open_clip_runner  # noqa: PLC0415
    from conure.engine.lanes.clips import transcribe_clips  # noqa: PLC0415  only this process needs networks

    runner, _ = open_clip_runner(
        plan.clips[0], device=plan.device, runner=plan.runner, cache=plan.cache, threads=plan.threads
    )
    longest = 0.0
    for clips, length in sizes:
        if longest > TOO_LONG:
            return
        said = _clips(clips, length)
        transcribe_clips(runner, said, batch_seconds=clips * length)
        took: list[float] = []
        while len(took) < RUNS and sum(took) < ENOUGH:
            began = time.perf_counter()
            transcribe_clips(runner, said, batch_seconds=clips * length)
            took.append(time.perf_counter() - began)
        longest = max(longest, min(took))
        yield Batch(clips, length, min(took))


def _clips(count: int, length: float) -> list[np.ndarray]:
    """float32 [N] each; they begin at different places of a speech."""
    pieces = voices(shipped(), length, count)
    return [np.frombuffer(pcm, "<i2").astype(np.float32) / 32768 for pcm in pieces]
