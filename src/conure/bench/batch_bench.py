"""Throughput of the engine without a server, by batch size and by clip length.

The model runs in a separate process, so the measuring process does not load it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np

from conure.bench.sample_speech import read_voices, sample_recording
from conure.engine.plan import Plan
from conure.errors import ConureError, EngineFailed

__all__ = ["CLIP_SECONDS", "BATCH_CLIPS", "Batch", "all_sizes", "measure_batches"]

CLIP_SECONDS = 10.0
"""Seconds of each clip when the batch size varies."""
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
CLIP_LENGTHS = (1, 2, 5, 10, 20, 30)
"""Seconds; a server splits longer audio."""
BATCH_CLIPS = 8
"""Clips in a batch when the clip length varies; the same lengths are also measured with one clip."""
MAX_TOTAL_SECONDS, MAX_RUNS = 3.0, 3
"""Limits of repetitions for each batch; the fastest counts."""
MAX_RUN_SECONDS = 10.0
"""Larger batches are skipped after a run that took longer, in seconds."""


@dataclass(frozen=True)
class Batch:
    clips: int
    length: float
    """Seconds of each clip."""
    seconds: float
    """Duration of the fastest run."""

    @property
    def speed(self) -> float:
        """Throughput as a multiple of real time (RTFx)."""
        return self.clips * self.length / self.seconds


def measure_batches(plan: Plan, sizes: Sequence[tuple[int, float]], report: Callable[[Batch], None]) -> None:
    """Measures each size (clips, seconds of each clip) and calls `report` with the result.

    Skips sizes that would take too long. Raises what opening the model raises.
    """
    context = get_context("spawn")
    parent_end, child_end = context.Pipe()
    process = context.Process(target=_work, args=(child_end, plan, sizes), name="batches", daemon=True)
    process.start()
    child_end.close()
    try:
        for result in iter(lambda: _receive(parent_end), None):
            report(result)
    except BaseException:
        process.terminate()
        raise
    finally:
        parent_end.close()
        process.join()


def all_sizes() -> list[tuple[int, float]]:
    """The sizes of both curves without duplicates, shortest total audio first."""
    sizes = {(clips, CLIP_SECONDS) for clips in BATCH_SIZES} | {
        (clips, float(length)) for length in CLIP_LENGTHS for clips in (1, BATCH_CLIPS)
    }
    return sorted(sizes, key=lambda size: size[0] * size[1])


def _receive(end: Connection) -> Batch | None:
    try:
        result: Batch | ConureError | None = end.recv()
    except EOFError:
        raise EngineFailed("the process that measures batches exited", "see its output on stderr") from None
    if isinstance(result, ConureError):
        raise result
    return result


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
    from conure.engine.lanes.clips import transcribe_clips  # noqa: PLC0415  only the child process loads torch

    runner, _ = open_clip_runner(
        plan.clip_models[0], device=plan.device, runner=plan.runner, cache=plan.cache_folder, threads=plan.threads
    )
    slowest = 0.0
    for clips, length in sizes:
        if slowest > MAX_RUN_SECONDS:
            return
        clips_audio = _clip_audio(clips, length)
        transcribe_clips(runner, clips_audio, batch_seconds=clips * length)
        times: list[float] = []
        while len(times) < MAX_RUNS and sum(times) < MAX_TOTAL_SECONDS:
            started_at = time.perf_counter()
            transcribe_clips(runner, clips_audio, batch_seconds=clips * length)
            times.append(time.perf_counter() - started_at)
        slowest = max(slowest, min(times))
        yield Batch(clips, length, min(times))


def _clip_audio(count: int, length: float) -> list[np.ndarray]:
    """float32 [N] each, starting at different places of the sample recording."""
    excerpts = read_voices(sample_recording(), length, count)
    return [np.frombuffer(pcm, "<i2").astype(np.float32) / 32768 for pcm in excerpts]
