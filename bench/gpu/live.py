"""Live streams in real time in a whole engine, including its Python code, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from bench.audio import speech
from bench.gpu.floors import COLUMNS, floor_cells
from bench.gpu.result_table import NOTHING, ResultTable
from bench.gpu.streams import Goal, live_runner, note_capture_failure
from bench.operations import stream_step as floor_of
from bench.random_model import LIVE_PAST
from conure.models.checkpoint import Checkpoint
from conure.models.config import AttentionContext

if TYPE_CHECKING:
    from conure.bench.statistics import Spread

__all__ = ["host", "paced"]

SECONDS, SMALL_SECONDS = 6.0, 1.0
"""Duration of each stream, and its duration on a CPU."""
NEEDED = ("msgspec", "onnx", "onnxruntime")
"""Imports of lanes and messages. Not every machine with a GPU has them, so lanes are imported lazily."""


def paced(checkpoint: Checkpoint, device: torch.device, goals: Iterable[Goal]) -> ResultTable:
    """Engines with the goal's number of streams, and with half of it."""
    columns = ("chunk ms", "streams", "lag p50", "p99 ms", "final p50", "p99 ms", "rows", "turn ms", *COLUMNS, "busy")
    table = ResultTable("Live streams in real time, in an engine", (*columns, "feeder late ms"))
    if table.lacks_modules(*NEEDED):
        return table
    for goal in goals:
        with table.record_failures(f"{goal.streams} streams at {goal.milliseconds} ms"):
            _pace(table, checkpoint, device, goal)
    return table


def _pace(table: ResultTable, checkpoint: Checkpoint, device: torch.device, goal: Goal) -> None:
    from bench.engine_trial import Trial  # noqa: PLC0415
    from conure.engine.lanes.cuda_lane import CudaLane  # noqa: PLC0415

    runner = live_runner(_of_one_chunk(checkpoint, goal.chunk), device)
    lane = CudaLane(runner, goal.streams)
    lane.capture_steps()
    note_capture_failure(runner, table)
    for streams in (goal.streams // 2, goal.streams):
        latency = goal.milliseconds
        voice = speech(SECONDS if device.type == "cuda" else SMALL_SECONDS)
        found = Trial({"live": lane}, [voice], streams, latency, latency / 1000).run()
        rows = max(round(found.rows), 1)
        cells = *_spread(found.lag), *_spread(found.final), f"{rows}", f"{1e3 * found.step:.1f}"
        floor = floor_cells(found.step, floor_of(runner.config, rows, goal.chunk, LIVE_PAST))
        table.add_row(f"{latency}", f"{streams}", *cells, *floor, f"{found.busy:.0%}", f"{1e3 * found.max_delay:.0f}")
        if found.unfinished:
            table.add_note(f"{found.unfinished} of {streams} streams at {latency} ms did not finish.")


def _of_one_chunk(checkpoint: Checkpoint, chunk: int) -> Checkpoint:
    """With one chunk size, only its steps are captured."""
    encoder = replace(checkpoint.config.encoder, contexts=(AttentionContext(LIVE_PAST, chunk - 1),))
    return replace(checkpoint, config=replace(checkpoint.config, encoder=encoder))


def _spread(spread: Spread | None) -> tuple[str, str]:
    return (f"{1e3 * spread.p50:.0f}", f"{1e3 * spread.p99:.0f}") if spread else (NOTHING, NOTHING)


def host(checkpoint: Checkpoint, cases: Sequence[tuple[int, int]]) -> ResultTable:
    """Python's time per stream and step: steps with an empty graph, which finds no speech and no tokens."""
    table = ResultTable(
        "Host time of a step", ("chunk ms", "streams", "us per stream: push", "ready", "fill", "report", "all")
    )
    if table.lacks_modules(*NEEDED):
        return table
    with table.record_failures("the lane"):
        for latency, streams in cases:
            found = _host_seconds(checkpoint, latency, streams)
            table.add_row(f"{latency}", f"{streams}", *(f"{seconds * 1e6 / streams:.1f}" for seconds in found))
    return table


def _host_seconds(checkpoint: Checkpoint, latency: int, streams: int) -> tuple[float, ...]:
    """Median times of a step of all streams: pushing audio, choosing rows, filling inputs, reporting, and the total."""
    from conure.engine.lanes.cuda_lane import CudaLane, step_sizes  # noqa: PLC0415
    from conure.engine.messages import StreamOptions  # noqa: PLC0415

    lane = CudaLane(live_runner(checkpoint, torch.device("cpu"), _nothing), streams)
    for number in range(streams):
        lane.open(number, StreamOptions("live", latency_ms=latency))
    samples, size = speech(latency / 1000 * 16), latency * 16
    times: list[tuple[float, ...]] = []
    for at in range(0, len(samples), size):
        begin = time.perf_counter()
        for number in range(streams):
            lane.push(number, samples[at : at + size], 0.0)
        pushed = time.perf_counter()
        ready = [work.stream for work in lane.ready_work()]
        chosen = time.perf_counter()
        max_rows = step_sizes(latency // 80, streams)[-1]
        for first in range(0, len(ready), max_rows):
            lane.run(ready[first : first + max_rows], 0.0)
        lane.drain()
        took, stages = time.perf_counter() - begin, lane.stages.collect()
        if ready:
            times.append((pushed - begin, chosen - pushed, stages["filling"], stages["telling"], took))
    return tuple(sorted(column)[len(column) // 2] for column in zip(*times[2:], strict=True))


def _nothing(work: Callable[[], None], results: Sequence[torch.Tensor] = ()) -> Callable[[], None]:
    """A graph capture of no work."""
    return lambda: None
