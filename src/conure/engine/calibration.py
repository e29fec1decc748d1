"""Calibration: measures what steps of a model cost on this machine, and so how many streams it can serve in real time.

The steps process recorded speech. Times of an earlier start are used when they are consistent and a step takes about as
long now as it did then. Doubtful steps are measured again, within a limit of time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from conure.audio.files import open_audio
from conure.constants import ENCODER_FRAME_MS, SAMPLE_RATE
from conure.engine.admission import capacity
from conure.engine.calibration_cache import CalibrationCache
from conure.engine.calibration_checks import StepTimes, find_doubtful, find_impossible, make_consistent, with_step
from conure.engine.lanes.chunk_lane import ChunkLane
from conure.engine.lanes.clips import transcribe_clips
from conure.engine.lanes.lane import StreamingLane
from conure.engine.lanes.segment_lane import SegmentLane
from conure.engine.lanes.stream_lane import StreamLane
from conure.engine.messages import Samples, StreamOptions
from conure.engine.plan import ModelInfo
from conure.engine.step_costs import StepCosts
from conure.vad.endpointing import Endpointing

__all__ = [
    "CHECK_ROWS",
    "calibrate",
    "capacity_summary",
    "discard_measurements",
    "measure_step",
    "rows_to_measure",
    "with_capacity",
]

log = logging.getLogger(__name__)

MEASURE_SECONDS = 0.4
"""For one latency of one model; a step of CHECK_ROWS is measured however long it takes."""
RETRY_SECONDS = 2.0
"""For measuring a model's doubtful steps again, each MAX_RETRIES times at most."""
MAX_RETRIES = 4
MEASURED_ROWS = (1, 8, 64)
CHECK_ROWS = 8
"""The step that is measured to validate cached times."""
UTTERANCE_SECONDS = 5.0
SPEECH_START = 3.2
"""Second of the recording, in the middle of a sentence."""
FIRST_STREAM = -1
MAX_SLOWDOWN, MAX_SPEEDUP = 1.5, 0.5
"""Factors over the cached time of a step, within which the cached times are used. On a machine that became slower they
would admit too many streams; when it was busy at the time, too few."""
CHECKS = 3
"""Measurements of the validating step; the fastest counts, because other programs only slow it down."""


def calibrate(
    info: ModelInfo, lane: StreamingLane, costs: StepCosts, cached: CalibrationCache | None = None
) -> tuple[ModelInfo, StepTimes]:
    """Sets the baselines in `costs`, and the capacity in the model info."""
    times = _validated(lane, cached.read()) if cached else None
    if times is None:
        measured = {latency: list(_measure_latency(lane, latency)) for latency in info.latencies}
        times = make_consistent(_retry_doubtful(measured, lane))
        if cached:
            cached.write(times)
    info = with_capacity(info, lane, costs, times)
    discard_measurements(lane)
    log.info("%s: capacity %s", info.name, capacity_summary(info))
    return info, times


def capacity_summary(info: ModelInfo) -> str:
    pairs = zip(info.latencies, info.capacity, strict=True)
    return ", ".join(f"{count} streams at {latency} ms" for latency, count in pairs)


def discard_measurements(lane: StreamingLane) -> None:
    """Resets the stage times, which count work for streams only, and frees the memory of the measured slots."""
    lane.stages.collect()
    if isinstance(lane, StreamLane) and not len(lane):
        lane.release_memory()


def with_capacity(info: ModelInfo, lane: StreamingLane, costs: StepCosts, times: StepTimes) -> ModelInfo:
    """The info with its capacity by the step times; also sets them as baselines in `costs`."""
    capacities, baseline = [], StepCosts()
    for latency in info.latencies:
        kind = (lane, latency // ENCODER_FRAME_MS)
        for rows, seconds in times[latency]:
            for target in (costs, baseline):
                target.set_baseline(kind, rows, seconds)
        capacities.append(capacity(baseline, kind, latency / 1000, lane.capacity))
    return replace(info, capacity=tuple(capacities))


def _validated(lane: StreamingLane, times: StepTimes | None) -> StepTimes | None:
    """The cached times; None when they are inconsistent, or when the machine is much slower or faster now."""
    if times is None or find_impossible(times):
        return None
    latency, pairs = min(times.items())
    rows, cached = next(pair for pair in reversed(pairs) if pair[0] <= CHECK_ROWS)
    now = min(measure_step(lane, latency, rows) for _ in range(CHECKS))
    if cached * MAX_SPEEDUP <= now <= cached * MAX_SLOWDOWN:
        return times
    log.info("a step that took %.1f ms takes %.1f ms now: calibrating again", cached * 1000, now * 1000)
    return None


def _retry_doubtful(times: StepTimes, lane: StreamingLane) -> StepTimes:
    """Measures doubtful steps again; of each, the fastest counts."""
    until = time.monotonic() + RETRY_SECONDS
    for _ in range(MAX_RETRIES):
        for latency, rows in find_doubtful(times):
            if time.monotonic() < until:
                times = with_step(times, latency, rows, measure_step(lane, latency, rows))
    return times


def measure_step(lane: StreamingLane, latency: int, rows: int) -> float:
    """Seconds of one step."""
    if isinstance(lane, ChunkLane):
        return _measure_chunks(lane, latency, rows)
    return next(_measure_utterance(lane, latency))[1]


def _measure_latency(lane: StreamingLane, latency: int) -> Iterator[tuple[int, float]]:
    return _measure_sizes(lane, latency) if isinstance(lane, ChunkLane) else _measure_utterance(lane, latency)


def _measure_utterance(lane: StreamingLane, latency: int) -> Iterator[tuple[int, float]]:
    """One stream that speaks without pause, and the seconds of work for one chunk of it. Partials are not counted."""
    assert isinstance(lane, SegmentLane)
    begin = time.perf_counter()
    transcribe_clips(lane.runner, [_speech(UTTERANCE_SECONDS)])
    real_time_fraction = (time.perf_counter() - begin) / UTTERANCE_SECONDS
    yield 1, latency / 1000 * real_time_fraction


def _measure_sizes(lane: ChunkLane, latency: int) -> Iterator[tuple[int, float]]:
    """Rows and seconds, for more and more rows, until a step takes longer than its chunk."""
    until = time.monotonic() + MEASURE_SECONDS
    for rows in rows_to_measure(lane, latency):
        if rows > CHECK_ROWS and time.monotonic() > until:
            return
        seconds = _measure_chunks(lane, latency, rows)
        yield rows, seconds
        if seconds > latency / 1000:
            return


def rows_to_measure(lane: StreamingLane, latency: int) -> list[int]:
    """Rows of the steps that are measured, ascending."""
    if not isinstance(lane, ChunkLane):
        return [1]
    return [rows for rows in sorted({*MEASURED_ROWS, lane.max_step_rows(latency)}) if rows <= lane.capacity]


def _measure_chunks(lane: ChunkLane, latency: int, rows: int) -> float:
    """Seconds of the second step with so many streams; the first one allocates memory."""
    numbers = range(FIRST_STREAM, FIRST_STREAM - rows, -1)
    options = StreamOptions("", latency, Endpointing())
    chunks = _speech(4 * latency / 1000)
    for number in numbers:
        lane.open(number, options)
        lane.push(number, chunks, 0.0)
    for _ in range(2):
        begin = time.perf_counter()
        lane.run([work.stream for work in lane.ready_work()], 0.0)
        lane.drain()
        seconds = time.perf_counter() - begin
    for number in numbers:
        lane.drop(number)
    return seconds


def _speech(seconds: float) -> Samples:
    begin = round(SPEECH_START * SAMPLE_RATE)
    return _recording()[begin : begin + round(seconds * SAMPLE_RATE)]


@cache
def _recording() -> Samples:
    with open_audio(Path(str(resources.files("conure"))) / "data" / "jfk.flac", rate=SAMPLE_RATE) as reader:
        return np.concatenate([block[0] for block in reader.blocks()])
