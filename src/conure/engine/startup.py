"""A plan becomes an engine: models are opened, rows allocated, and it is measured what the machine holds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import psutil
import torch

from conure.engine.admission import capacity
from conure.engine.clip_lane import ClipLane
from conure.engine.cost import Costs
from conure.engine.loop import Engine
from conure.engine.messages import Answer, Note, StreamOptions
from conure.engine.opening import Opened, open_model
from conure.engine.plan import ModelCard, Plan
from conure.engine.stream_lane import StreamLane
from conure.vad.endpoints import Endpointing
from conure.vad.silero import load_silero

__all__ = ["Lanes", "build_lanes", "measure", "start_engine"]

log = logging.getLogger(__name__)

MOST_SLOTS = 1024
MEMORY = 0.25
"""Of the memory that is free, for the rows of a live model."""
TEST_SECONDS = 1.0
"""For measuring one latency of one model."""
TEST_STREAM = -1


class Lanes:
    """What an engine is built from."""

    def __init__(self) -> None:
        self.live: dict[str, StreamLane] = {}
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
    pieces = checkpoint.tokenizer.pieces
    card = ModelCard(
        name=checkpoint.name,
        asked=asked,
        tokenizer_file=checkpoint.tokenizer.file_name,
        tokenizer=checkpoint.tokenizer.data,
        vocabulary=checkpoint.config.vocabulary,
        languages=checkpoint.languages,
        prompt_ids=checkpoint.config.prompt_ids,
        runner=opened.description,
    )
    if opened.streams is not None:
        end = pieces.index("<EOU>") if "<EOU>" in pieces else None
        slots = plan.slots or _slots(opened)
        lane = lanes.live[card.name] = StreamLane(opened.streams, load_silero(), slots, end)
        card = replace(card, latencies=lane.latencies, slots=slots)
    if opened.clips is not None:
        lanes.clips[card.name] = ClipLane(opened.clips)
        card = replace(card, clips=True)
    return card


def _slots(opened: Opened) -> int:
    """As many rows as memory allows."""
    assert opened.streams is not None
    one = opened.streams.allocate(1).bytes
    if opened.device.type == "cuda":
        free = torch.cuda.mem_get_info(opened.device)[0]
    else:
        free = psutil.virtual_memory().available
    return max(1, min(MOST_SLOTS, int(free * MEMORY) // one))


def measure(lanes: Lanes, costs: Costs) -> None:
    """Learns what turns cost, by running them on noise, and writes into the cards how many streams fit."""
    for index, card in enumerate(lanes.cards):
        if card.name not in lanes.live:
            continue
        lane, held = lanes.live[card.name], []
        for latency in card.latencies:
            for rows, seconds in _turns(lane, latency, card.slots):
                costs.learn((lane, latency // 80), rows, seconds)
            held.append(capacity(costs, (lane, latency // 80), latency / 1000, card.slots))
        lanes.cards[index] = replace(card, capacity=tuple(held))
        told = ", ".join(f"{count} at {latency} ms" for latency, count in zip(card.latencies, held, strict=True))
        log.info("%s: room for %s", card.name, told)


def _turns(lane: StreamLane, latency: int, most: int) -> Iterator[tuple[int, float]]:
    """Rows and seconds, for one row, 4, 16 and so on until a turn takes longer than its chunk."""
    until = time.monotonic() + TEST_SECONDS
    rows = 1
    while rows <= most and time.monotonic() < until:
        seconds = _turn(lane, latency, rows)
        yield rows, seconds
        if seconds > latency / 1000:
            return
        rows *= 4


def _turn(lane: StreamLane, latency: int, rows: int) -> float:
    """Seconds of the third turn of so many streams; the first one of a size prepares memory."""
    numbers = range(TEST_STREAM, TEST_STREAM - rows, -1)
    options = StreamOptions("", latency, Endpointing())
    chunk = (np.random.default_rng(0).standard_normal(latency * 16) * 0.05).astype(np.float32)
    for number in numbers:
        lane.open(number, options)
    seconds = 0.0
    for _ in range(3):
        for number in numbers:
            lane.push(number, chunk, 0.0)
        ready = [work.stream for work in lane.ready()]
        begin = time.perf_counter()
        if ready:
            lane.run(ready, 0.0)
            seconds = time.perf_counter() - begin
    for number in numbers:
        lane.drop(number)
    return seconds


def start_engine(plan: Plan, deliver: Callable[[list[Answer | Note]], None]) -> tuple[Engine, list[ModelCard]]:
    """An engine that knows what its turns cost; its `run` is the caller's. Raises what opening a model raises."""
    lanes, costs = build_lanes(plan), Costs()
    measure(lanes, costs)
    return Engine(lanes.live, lanes.clips, deliver, costs=costs), lanes.cards
