"""A plan becomes an engine: models are opened, rows allocated, and it is measured what the machine holds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import psutil
import torch

from conure.audio.files import open_audio
from conure.engine.admission import capacity
from conure.engine.buffered_lane import BufferedLane
from conure.engine.clip_lane import ClipLane
from conure.engine.clips import transcribe_clips
from conure.engine.cost import Costs
from conure.engine.device_lane import DeviceLane
from conure.engine.live_lane import LiveLane
from conure.engine.loop import Engine
from conure.engine.messages import Answer, Note, Samples, StreamOptions
from conure.engine.opening import Opened, open_model
from conure.engine.plan import ModelCard, Plan
from conure.engine.segment_lane import SegmentLane
from conure.engine.stream_lane import StreamLane
from conure.vad.endpoints import Endpointing
from conure.vad.silero import load_silero

__all__ = ["Lanes", "build_lanes", "measure", "start_engine"]

log = logging.getLogger(__name__)

RATE = 16_000
STEP_MS = 80
MOST_SLOTS = 1024
MEMORY = 0.25
"""Of the memory that is free, for the rows of a live model."""
TEST_SECONDS = 0.4
"""For measuring one latency of one model."""
TEST_ROWS = (1, 8, 64)
"""More cost as much each as 64 do, and would leave memory behind that few streams need."""
TEST_UTTERANCE = 5.0
SPEAKS_AT = 3.2
TEST_STREAM = -1
END = "<EOU>"


class Lanes:
    """What an engine is built from."""

    def __init__(self) -> None:
        self.live: dict[str, LiveLane] = {}
        self.clips: dict[str, ClipLane] = {}
        self.cards: list[ModelCard] = []


def build_lanes(plan: Plan) -> Lanes:
    """Raises what opening a model raises."""
    lanes = Lanes()
    for asked in dict.fromkeys(plan.live + plan.clips):
        opened = open_model(asked, plan, live=asked in plan.live, clips=asked in plan.clips)
        lanes.cards.append(_card(opened, asked, plan, lanes))
    return lanes


def _card(opened: Opened, asked: str, plan: Plan, lanes: Lanes) -> ModelCard:
    checkpoint = opened.checkpoint
    card = ModelCard(
        name=asked if any(card.name == checkpoint.name for card in lanes.cards) else checkpoint.name,
        asked=asked,
        tokenizer_file=checkpoint.tokenizer.file_name,
        tokenizer=checkpoint.tokenizer.data,
        vocabulary=checkpoint.config.vocabulary,
        languages=checkpoint.languages,
        prompt_ids=checkpoint.config.prompt_ids,
        runner=opened.description,
    )
    if asked in plan.live:
        lane = lanes.live[card.name] = _live_lane(opened, plan)
        card = replace(card, latencies=lane.latencies, slots=lane.capacity)
    if asked in plan.clips:
        assert opened.clips is not None
        lanes.clips[card.name] = ClipLane(opened.clips)
        card = replace(card, clips=True)
    return card


def _live_lane(opened: Opened, plan: Plan) -> LiveLane:
    """The lane that fits the network: cache-aware, with windows, or whole utterances."""
    tokenizer = opened.checkpoint.tokenizer
    end = tokenizer.pieces.index(END) if END in tokenizer.pieces else None
    if opened.device_streams is not None:
        lane = DeviceLane(opened.device_streams, plan.slots or _slots(opened), end)
        lane.prepare()
        return lane
    if opened.streams is not None:
        return StreamLane(opened.streams, load_silero(), plan.slots or _slots(opened), end)
    if opened.windows is not None:
        return BufferedLane(opened.windows, load_silero(), plan.slots or MOST_SLOTS, end)
    assert opened.clips is not None
    return SegmentLane(opened.clips, load_silero(), tokenizer, plan.slots or MOST_SLOTS)


def _slots(opened: Opened) -> int:
    """As many rows as memory allows."""
    assert opened.streams is not None
    one: int = opened.streams.allocate(1).encoder.bytes
    if opened.device.type == "cuda":
        free = torch.cuda.mem_get_info(opened.device)[0]
    else:
        free = psutil.virtual_memory().available
    return max(1, min(MOST_SLOTS, int(free * MEMORY) // one))


def measure(lanes: Lanes, costs: Costs) -> None:
    """Learns what turns cost, by running them on speech, and writes into the cards how many streams fit."""
    for index, card in enumerate(lanes.cards):
        lane = lanes.live.get(card.name)
        if lane is None:
            continue
        held = []
        for latency in card.latencies:
            for rows, seconds in _utterances(lane, latency) if isinstance(lane, SegmentLane) else _turns(lane, latency):
                costs.learn((lane, latency // STEP_MS), rows, seconds)
            held.append(capacity(costs, (lane, latency // STEP_MS), latency / 1000, lane.capacity))
        lane.stages.take()  # what is counted is the work for streams
        lanes.cards[index] = replace(card, capacity=tuple(held))
        told = ", ".join(f"{count} at {latency} ms" for latency, count in zip(card.latencies, held, strict=True))
        log.info("%s: room for %s", card.name, told)


def _utterances(lane: SegmentLane, latency: int) -> Iterator[tuple[int, float]]:
    """Streams and seconds of work in a chunk's time, if each spoke all the time. Guesses take time that is left."""
    begin = time.perf_counter()
    transcribe_clips(lane.runner, [_speech(TEST_UTTERANCE)])
    spent = (time.perf_counter() - begin) / TEST_UTTERANCE
    yield 1, latency / 1000 * spent


def _turns(lane: LiveLane, latency: int) -> Iterator[tuple[int, float]]:
    """Rows and seconds, for more and more rows until a turn takes longer than its chunk."""
    until = time.monotonic() + TEST_SECONDS
    for rows in TEST_ROWS:
        if rows > lane.capacity or time.monotonic() > until:
            return
        seconds = _turn(lane, latency, rows)
        yield rows, seconds
        if seconds > latency / 1000:
            return


def _turn(lane: LiveLane, latency: int, rows: int) -> float:
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


def start_engine(plan: Plan, deliver: Callable[[list[Answer | Note]], None]) -> tuple[Engine, list[ModelCard]]:
    """An engine that knows what its turns cost; its `run` is the caller's. Raises what opening a model raises."""
    lanes, costs = build_lanes(plan), Costs()
    measure(lanes, costs)
    return Engine(lanes.live, lanes.clips, deliver, costs=costs), lanes.cards
