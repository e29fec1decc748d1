"""What turns of a model cost on this machine, and how many streams fit: measured by turns on speech.

What was measured at an earlier start is believed where a turn that is made now costs about as much as then, and where
all of it can be true. A turn of which others say that it cannot have cost so much is made again, for a while.
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
from conure.engine.admission import capacity
from conure.engine.calibration_cache import CalibrationCache
from conure.engine.calibration_checks import Turns, doubtful, impossible, sound, with_turn
from conure.engine.lanes.chunk_lane import ChunkLane
from conure.engine.lanes.clips import transcribe_clips
from conure.engine.lanes.lane import StreamingLane
from conure.engine.lanes.segment_lane import SegmentLane
from conure.engine.lanes.stream_lane import StreamLane
from conure.engine.messages import Samples, StreamOptions
from conure.engine.plan import ModelInfo
from conure.engine.step_costs import StepCosts
from conure.vad.endpointing import Endpointing

__all__ = ["FEW_ROWS", "give_back", "measure", "planned", "sizes_of", "told_room", "turn"]

log = logging.getLogger(__name__)

RATE = 16_000
STEP_MS = 80
TEST_SECONDS = 0.4
"""For measuring one latency of one model; a turn of FEW_ROWS is made whatever it takes."""
DOUBT_SECONDS = 2.0
"""For making doubtful turns of a model again, each MOST_DOUBTS times at most."""
MOST_DOUBTS = 4
TEST_ROWS = (1, 8, 64)
FEW_ROWS = 8
"""Whose turn tells whether what was kept is still true."""
TEST_UTTERANCE = 5.0
SPEAKS_AT = 3.2
TEST_STREAM = -1
SLOWER, FASTER = 1.5, 0.5
"""Of what a turn took, within which it takes as long now: more streams are admitted than there is time for where the
machine has become slower, and fewer than there might be where it was busy then."""
CHECKS = 3
"""Turns of which the quickest tells: others on the machine come and go."""


def measure(
    card: ModelInfo, lane: StreamingLane, costs: StepCosts, kept: CalibrationCache | None = None
) -> tuple[ModelInfo, Turns]:
    """Learns what turns cost, and writes into the card how many streams fit."""
    turns = _believed(lane, kept.read()) if kept else None
    if turns is None:
        turns = sound(_sure({latency: list(_measured(lane, latency)) for latency in card.latencies}, lane))
        if kept:
            kept.write(turns)
    card = planned(card, lane, costs, turns)
    give_back(lane)
    log.info("%s: room for %s", card.name, told_room(card))
    return card, turns


def told_room(card: ModelInfo) -> str:
    return ", ".join(f"{count} at {latency} ms" for latency, count in zip(card.latencies, card.capacity, strict=True))


def give_back(lane: StreamingLane) -> None:
    """What turns left behind that were only measured."""
    lane.stages.take()  # what is counted is the work for streams
    if isinstance(lane, StreamLane) and not len(lane):
        lane.give_back()


def planned(card: ModelInfo, lane: StreamingLane, costs: StepCosts, turns: Turns) -> ModelInfo:
    """With how many streams fit, as turns were measured; `costs` learn of it."""
    held, alone = [], StepCosts()
    for latency in card.latencies:
        kind = (lane, latency // STEP_MS)
        for rows, seconds in turns[latency]:
            for each in (costs, alone):
                each.plan(kind, rows, seconds)
        held.append(capacity(alone, kind, latency / 1000, lane.capacity))
    return replace(card, capacity=tuple(held))


def _believed(lane: StreamingLane, turns: Turns | None) -> Turns | None:
    """What was kept, unless this machine is much slower or faster now than it was then, or it contradicts itself."""
    if turns is None or impossible(turns):
        return None
    latency, known = min(turns.items())
    rows, before = next(pair for pair in reversed(known) if pair[0] <= FEW_ROWS)
    now = min(turn(lane, latency, rows) for _ in range(CHECKS))
    if before * FASTER <= now <= before * SLOWER:
        return turns
    log.info("a turn that took %.1f ms takes %.1f ms now: all are measured anew", before * 1000, now * 1000)
    return None


def _sure(turns: Turns, lane: StreamingLane) -> Turns:
    """The same, with doubtful turns made again, and the quickest of each."""
    until = time.monotonic() + DOUBT_SECONDS
    for _ in range(MOST_DOUBTS):
        for latency, rows in doubtful(turns):
            if time.monotonic() < until:
                turns = with_turn(turns, latency, rows, turn(lane, latency, rows))
    return turns


def turn(lane: StreamingLane, latency: int, rows: int) -> float:
    """Seconds of one, made now."""
    return _turn(lane, latency, rows) if isinstance(lane, ChunkLane) else next(_utterances(lane, latency))[1]


def _measured(lane: StreamingLane, latency: int) -> Iterator[tuple[int, float]]:
    return _turns(lane, latency) if isinstance(lane, ChunkLane) else _utterances(lane, latency)


def _utterances(lane: StreamingLane, latency: int) -> Iterator[tuple[int, float]]:
    """Streams and seconds of work in a chunk's time, if each spoke all the time. Guesses take time that is left."""
    assert isinstance(lane, SegmentLane)
    begin = time.perf_counter()
    transcribe_clips(lane.runner, [_speech(TEST_UTTERANCE)])
    spent = (time.perf_counter() - begin) / TEST_UTTERANCE
    yield 1, latency / 1000 * spent


def _turns(lane: ChunkLane, latency: int) -> Iterator[tuple[int, float]]:
    """Rows and seconds, for more and more rows until a turn takes longer than its chunk."""
    until = time.monotonic() + TEST_SECONDS
    for rows in sizes_of(lane, latency):
        if rows > FEW_ROWS and time.monotonic() > until:
            return
        seconds = _turn(lane, latency, rows)
        yield rows, seconds
        if seconds > latency / 1000:
            return


def sizes_of(lane: StreamingLane, latency: int) -> list[int]:
    """Rows of the turns that are worth measuring, fewest first."""
    if not isinstance(lane, ChunkLane):
        return [1]
    return [rows for rows in sorted({*TEST_ROWS, lane.largest_turn(latency)}) if rows <= lane.capacity]


def _turn(lane: StreamingLane, latency: int, rows: int) -> float:
    """Seconds of the second turn of so many streams; the first one of a size prepares memory."""
    numbers = range(TEST_STREAM, TEST_STREAM - rows, -1)
    options = StreamOptions("", latency, Endpointing())
    chunks = _speech(4 * latency / 1000)
    for number in numbers:
        lane.open(number, options)
        lane.push(number, chunks, 0.0)
    for _ in range(2):
        begin = time.perf_counter()
        lane.run([work.stream for work in lane.ready()], 0.0)
        lane.settle()
        seconds = time.perf_counter() - begin
    for number in numbers:
        lane.drop(number)
    return seconds


def _speech(seconds: float) -> Samples:
    """From the middle of a sentence of the recording that is shipped."""
    begin = round(SPEAKS_AT * RATE)
    return _recording()[begin : begin + round(seconds * RATE)]


@cache
def _recording() -> Samples:
    with open_audio(Path(str(resources.files("conure"))) / "data" / "jfk.flac", rate=RATE) as reader:
        return np.concatenate([block[0] for block in reader.blocks()])
