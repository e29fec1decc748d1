"""A plan becomes an engine: models are opened, rows allocated, and it is measured what the machine holds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from conure.audio.files import open_audio
from conure.engine.admission import capacity
from conure.engine.buffered_lane import BufferedLane
from conure.engine.chunk_lane import ChunkLane
from conure.engine.clip_lane import ClipLane
from conure.engine.clips import transcribe_clips
from conure.engine.cost import Costs
from conure.engine.device import Device, free_bytes, give_back, hold_to, out_of_memory, told
from conure.engine.live_lane import LiveLane
from conure.engine.loop import Engine
from conure.engine.memory import Grant, Need, least, share, table
from conure.engine.messages import Answer, Note, Samples, StreamOptions
from conure.engine.needs import need_of
from conure.engine.opening import Opened, choose_device, open_model
from conure.engine.plan import ModelCard, Plan
from conure.engine.segment_lane import SegmentLane
from conure.engine.stream_lane import StreamLane
from conure.errors import OutOfMemory
from conure.vad.endpoints import Endpointing
from conure.vad.silero import load_silero

__all__ = ["Lanes", "build_lanes", "measure", "start_engine"]

log = logging.getLogger(__name__)

RATE = 16_000
STEP_MS = 80
MEMORY = 0.25
"""Of the memory that is free, for the rows of live models."""
CARD_MEMORY = 0.9
"""The same of a card, for everything; the rest is for kernels and for what lies between tensors."""
TEST_SECONDS = 0.4
"""For measuring one latency of one model."""
TEST_ROWS = (1, 8, 64)
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
    """Raises what opening a model raises, and OutOfMemory."""
    lanes, device = Lanes(), choose_device(plan.device, plan.runner)
    budget = _on_card(device, plan)
    models = {asked: _open(asked, plan) for asked in dict.fromkeys(plan.live + plan.clips)}
    give_back()
    needs = [need_of(opened, asked, plan) for asked, opened in models.items()]
    grants = _grants(budget or _on_cpu(device, needs), needs)
    for (asked, opened), grant in zip(models.items(), grants, strict=True):
        lanes.cards.append(_card(opened, asked, plan, grant, lanes))
    return lanes


def _on_card(device: Device, plan: Plan) -> int:
    """Bytes of a card for everything; 0 of a CPU."""
    if device.type == "cpu":
        return 0
    budget = int(free_bytes(device) * (plan.device_memory or CARD_MEMORY))
    if plan.device_memory:
        hold_to(device, budget)
    return budget


def _on_cpu(device: Device, needs: Sequence[Need]) -> int:
    """Bytes for rows. What was asked for is granted: it takes memory only when it is used."""
    return max(int(free_bytes(device) * MEMORY), least(needs))


def _open(asked: str, plan: Plan) -> Opened:
    try:
        return open_model(asked, plan, live=asked in plan.live, clips=asked in plan.clips)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        message = f"the weights of {asked} do not fit the memory of the device: {told(error)}"
    raise OutOfMemory(message, "take a smaller model, or fewer models")


def _grants(budget: int, needs: Sequence[Need]) -> list[Grant]:
    grants = share(budget, needs)
    for line in table(budget, grants):
        log.info("memory: %s", line)
    return grants


def _card(opened: Opened, asked: str, plan: Plan, grant: Grant, lanes: Lanes) -> ModelCard:
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
        lane = lanes.live[card.name] = _live_lane(opened, grant.rows)
        card = replace(card, latencies=lane.latencies, slots=lane.capacity)
    if asked in plan.clips:
        lanes.clips[card.name] = _clip_lane(opened, grant)
        card = replace(card, clips=True)
    return card


def _clip_lane(opened: Opened, grant: Grant) -> ClipLane:
    assert opened.clips is not None
    if opened.device.type != "cpu":
        from conure.engine.card_lanes import prepare_clips  # noqa: PLC0415  it loads torch

        prepare_clips(opened.clips)
    if grant.need.clips is None:
        return ClipLane(opened.clips)
    return ClipLane(opened.clips, grant.seconds, grant.most_clips)


def _live_lane(opened: Opened, slots: int) -> LiveLane:
    """The lane that fits the network: cache-aware, with windows, or whole utterances."""
    tokenizer = opened.checkpoint.tokenizer
    end = tokenizer.pieces.index(END) if END in tokenizer.pieces else None
    if opened.device_streams is not None:
        from conure.engine.card_lanes import open_device_lane  # noqa: PLC0415  it loads torch

        return open_device_lane(opened.device_streams, slots, end)
    if opened.streams is not None:
        return StreamLane(opened.streams, load_silero(), slots, end)
    if opened.windows is not None:
        return BufferedLane(opened.windows, load_silero(), slots, end)
    assert opened.clips is not None
    return SegmentLane(opened.clips, load_silero(), tokenizer, slots)


def measure(lanes: Lanes, costs: Costs) -> None:
    """Learns what turns cost, by running them on speech, and writes into the cards how many streams fit."""
    for index, card in enumerate(lanes.cards):
        lane = lanes.live.get(card.name)
        if lane is None:
            continue
        held = []
        for latency in card.latencies:
            for rows, seconds in _turns(lane, latency) if isinstance(lane, ChunkLane) else _utterances(lane, latency):
                costs.learn((lane, latency // STEP_MS), rows, seconds)
            held.append(capacity(costs, (lane, latency // STEP_MS), latency / 1000, lane.capacity))
        lane.stages.take()  # what is counted is the work for streams
        lanes.cards[index] = replace(card, capacity=tuple(held))
        told = ", ".join(f"{count} at {latency} ms" for latency, count in zip(card.latencies, held, strict=True))
        log.info("%s: room for %s", card.name, told)


def _utterances(lane: LiveLane, latency: int) -> Iterator[tuple[int, float]]:
    """Streams and seconds of work in a chunk's time, if each spoke all the time. Guesses take time that is left."""
    assert isinstance(lane, SegmentLane)
    begin = time.perf_counter()
    transcribe_clips(lane.runner, [_speech(TEST_UTTERANCE)])
    spent = (time.perf_counter() - begin) / TEST_UTTERANCE
    yield 1, latency / 1000 * spent


def _turns(lane: ChunkLane, latency: int) -> Iterator[tuple[int, float]]:
    """Rows and seconds, for more and more rows until a turn takes longer than its chunk."""
    until = time.monotonic() + TEST_SECONDS
    for rows in sorted({*TEST_ROWS, lane.largest_turn(latency)}):
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
