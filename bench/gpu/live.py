"""Streams at the pace of speech in a whole engine, its Python included, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from bench.audio import speech
from bench.gpu.floors import COLUMNS, beside
from bench.gpu.streams import Goal, live_runner, were_recorded
from bench.gpu.told import NOTHING, Told
from bench.operations import turn as floor_of
from bench.random_model import LIVE_PAST
from conure.models.checkpoint import Checkpoint
from conure.models.config import AttentionContext

if TYPE_CHECKING:
    from conure.bench.statistics import Spread

__all__ = ["host", "paced"]

SECONDS, FEW_SECONDS = 6.0, 1.0
"""Of each stream, and where it is only to be seen that the bench works."""
NEEDED = ("msgspec", "onnx", "onnxruntime")
"""What lanes and messages import; not every machine with a card has it, so lanes are imported where they are used."""


def paced(checkpoint: Checkpoint, device: torch.device, goals: Iterable[Goal]) -> Told:
    """Whole engines at their goals, and at half of them, where finals are asked for."""
    columns = ("chunk ms", "streams", "lag p50", "p99 ms", "final p50", "p99 ms", "rows", "turn ms", *COLUMNS, "busy")
    told = Told("Streams at the pace of speech, in an engine", (*columns, "feeder late ms"))
    if told.lacks(*NEEDED):
        return told
    for goal in goals:
        with told.failures(f"{goal.streams} streams at {goal.milliseconds} ms"):
            _pace(told, checkpoint, device, goal)
    return told


def _pace(told: Told, checkpoint: Checkpoint, device: torch.device, goal: Goal) -> None:
    from bench.engine_trial import Trial  # noqa: PLC0415
    from conure.engine.lanes.cuda_lane import CudaLane  # noqa: PLC0415

    runner = live_runner(_of_one_chunk(checkpoint, goal.chunk), device)
    lane = CudaLane(runner, goal.streams)
    lane.prepare()
    were_recorded(runner, told)
    for streams in (goal.streams // 2, goal.streams):
        latency = goal.milliseconds
        said = speech(SECONDS if device.type == "cuda" else FEW_SECONDS)
        found = Trial({"live": lane}, [said], streams, latency, latency / 1000).run()
        rows = max(round(found.rows), 1)
        cells = *_spread(found.lag), *_spread(found.final), f"{rows}", f"{1e3 * found.turn:.1f}"
        floor = beside(found.turn, floor_of(runner.config, rows, goal.chunk, LIVE_PAST))
        told.row(f"{latency}", f"{streams}", *cells, *floor, f"{found.busy:.0%}", f"{1e3 * found.late:.0f}")
        if found.unfinished:
            told.note(f"{found.unfinished} of {streams} streams at {latency} ms did not finish.")


def _of_one_chunk(checkpoint: Checkpoint, chunk: int) -> Checkpoint:
    """Only its turns are recorded then."""
    encoder = replace(checkpoint.config.encoder, contexts=(AttentionContext(LIVE_PAST, chunk - 1),))
    return replace(checkpoint, config=replace(checkpoint.config, encoder=encoder))


def _spread(spread: Spread | None) -> tuple[str, str]:
    return (f"{1e3 * spread.p50:.0f}", f"{1e3 * spread.p99:.0f}") if spread else (NOTHING, NOTHING)


def host(checkpoint: Checkpoint, cases: Sequence[tuple[int, int]]) -> Told:
    """What a stream costs Python in a turn: turns whose recording does nothing, and finds no speech and no tokens."""
    told = Told(
        "The host's part of a turn", ("chunk ms", "streams", "us a stream: push", "ready", "fill", "tell", "all")
    )
    if told.lacks(*NEEDED):
        return told
    with told.failures("the lane"):
        for latency, streams in cases:
            found = _host_seconds(checkpoint, latency, streams)
            told.row(f"{latency}", f"{streams}", *(f"{seconds * 1e6 / streams:.1f}" for seconds in found))
    return told


def _host_seconds(checkpoint: Checkpoint, latency: int, streams: int) -> tuple[float, ...]:
    """Of a turn of all streams: pushing, choosing, filling, telling, and all of it."""
    from conure.engine.lanes.cuda_lane import CudaLane, sizes_of  # noqa: PLC0415
    from conure.engine.messages import StreamOptions  # noqa: PLC0415

    lane = CudaLane(live_runner(checkpoint, torch.device("cpu"), _nothing), streams)
    for number in range(streams):
        lane.open(number, StreamOptions("live", latency_ms=latency))
    samples, size = speech(latency / 1000 * 16), latency * 16
    taken: list[tuple[float, ...]] = []
    for at in range(0, len(samples), size):
        begin = time.perf_counter()
        for number in range(streams):
            lane.push(number, samples[at : at + size], 0.0)
        pushed = time.perf_counter()
        ready = [work.stream for work in lane.ready()]
        chosen = time.perf_counter()
        most = sizes_of(latency // 80, streams)[-1]
        for first in range(0, len(ready), most):
            lane.run(ready[first : first + most], 0.0)
        lane.settle()
        took, stages = time.perf_counter() - begin, lane.stages.take()
        if ready:
            taken.append((pushed - begin, chosen - pushed, stages["filling"], stages["telling"], took))
    return tuple(sorted(column)[len(column) // 2] for column in zip(*taken[2:], strict=True))


def _nothing(work: Callable[[], None], results: Sequence[torch.Tensor] = ()) -> Callable[[], None]:
    """A recording of no work."""
    return lambda: None
