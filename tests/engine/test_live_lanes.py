"""Every kind of lane: under any requests in any order, each stream ends once and leaves nothing behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from dataclasses import replace as change

import numpy as np
import pytest
import torch

from conure.audio.features import LogMel
from conure.engine.backends.torch_eager.stream_runner import TorchStreamRunner
from conure.engine.backends.torch_eager.window_runner import TorchWindowRunner
from conure.engine.lanes.lane import StreamingLane
from conure.engine.lanes.segment_lane import SegmentLane
from conure.engine.lanes.stream_lane import StreamLane
from conure.engine.lanes.window_lane import WindowLane
from conure.engine.messages import FINAL_EVENTS, Marker, StreamEvent, StreamOptions, StreamTokens
from conure.models.config import AttentionContext
from conure.vad.endpointing import Endpointing
from conure.vad.silero import load_silero
from tests.engine.known_words import TOKENIZER, KnowingRunner
from tests.models.networks import OFFLINE, STREAMING, network
from tests.vad.digits import RATE, recording

HEADS = {"predictor_width": 16, "predictor_layers": 1, "joint_width": 16, "max_symbols": 2}
SLOTS = 3


def stream_lane() -> StreamingLane:
    net = network(change(STREAMING, contexts=(AttentionContext(14, 1), AttentionContext(14, 3))), **HEADS)
    return StreamLane(TorchStreamRunner(net, LogMel(net.config.mel), torch.device("cpu")), load_silero(), SLOTS)


def buffered_lane() -> StreamingLane:
    contexts = (AttentionContext(), AttentionContext(8, 1, 1), AttentionContext(8, 2, 2))
    net = network(change(OFFLINE, style="chunked_limited_with_rc", contexts=contexts), **HEADS)
    return WindowLane(TorchWindowRunner(net, LogMel(net.config.mel), torch.device("cpu")), load_silero(), SLOTS)


def segment_lane() -> StreamingLane:
    return SegmentLane(KnowingRunner([]), load_silero(), TOKENIZER, SLOTS)  # type: ignore[arg-type]


LANES = {"stream": stream_lane, "buffered": buffered_lane, "segment": segment_lane}


@dataclass
class RandomStreams:
    """Streams that open, send and end at random."""

    lane: StreamingLane
    chance: random.Random
    events: dict[int, list[StreamEvent]] = field(default_factory=dict)
    markers: dict[int, list[int]] = field(default_factory=dict)
    closing: set[int] = field(default_factory=set)
    now: float = 0.0

    @property
    def open_numbers(self) -> list[int]:
        return [
            number for number, answers in self.events.items() if not (answers and isinstance(answers[-1], FINAL_EVENTS))
        ]

    def open(self) -> None:
        number = len(self.events)
        options = StreamOptions("m", self.chance.choice([160, 320]), Endpointing(longest=2.0))
        if self.lane.open(number, options):
            self.events[number], self.markers[number] = [], []
        else:
            assert len(self.lane) == self.lane.capacity == SLOTS

    def act(self, number: int, speech: np.ndarray) -> None:
        match self.chance.choice(["send"] * 8 + ["mark", "mark", "change", "close", "cancel"]):
            case "cancel":
                self.events[number] += self.lane.cancel(number)
            case _ if number in self.closing:
                pass
            case "send":
                begin = self.chance.randrange(len(speech))
                size = self.chance.choice([0, 1, 300, 5_000, 40_000])
                self.lane.push(number, speech[begin : begin + size], self.now)
            case "mark":
                self.markers[number].append(len(self.markers[number]))
                self.lane.finalize(number, self.markers[number][-1], self.now)
            case "change":
                self.lane.configure(number, Endpointing(silence=self.chance.choice([None, 0.1, 0.5])))
            case "close":
                self.close(number)

    def close(self, number: int) -> None:
        self.closing.add(number)
        self.lane.finalize(number, None, self.now)

    def step(self) -> bool:
        works = self.lane.ready_work()
        assert len({work.stream for work in works}) == len(works)
        if not works:
            return False
        kind = self.chance.choice(works).kind
        streams = [work.stream for work in works if work.kind == kind]
        some = [stream for stream in streams if self.chance.random() < 0.8] or streams
        for answer in self.lane.run(some, self.now):
            self.events[answer.stream].append(answer)
        self.now += 0.01
        return True


@pytest.mark.parametrize("make", LANES.values(), ids=LANES)
@pytest.mark.parametrize("seed", range(3))
def test_every_stream_ends_once_under_any_requests(
    make: Callable[[], StreamingLane], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KnowingRunner, "_hear", lambda *_: [])
    chance = random.Random(seed)
    speech, _ = recording([(chance.uniform(0.0, 1.0), chance.randrange(10), "george") for _ in range(8)])
    random_streams = RandomStreams(make(), chance)
    for _ in range(60):
        if chance.random() < 0.3:
            random_streams.open()
        if open_numbers := random_streams.open_numbers:
            random_streams.act(chance.choice(open_numbers), speech)
        if chance.random() < 0.5:
            random_streams.step()
    for number in random_streams.open_numbers:
        if number not in random_streams.closing:
            random_streams.close(number)
    while random_streams.step():
        pass
    assert len(random_streams.events) > SLOTS
    for number, answers in random_streams.events.items():
        assert [isinstance(answer, FINAL_EVENTS) for answer in answers].count(True) == 1
        assert isinstance(answers[-1], FINAL_EVENTS)
        marked = [answer.marker for answer in answers if isinstance(answer, Marker)]
        assert marked == random_streams.markers[number][: len(marked)]
        reached = [answer.until for answer in answers if isinstance(answer, StreamTokens)]
        assert reached == sorted(reached)
    assert len(random_streams.lane) == 0
    assert random_streams.lane.ready_work() == []
    assert random_streams.lane.expected_work() == []


@pytest.mark.parametrize("make", LANES.values(), ids=LANES)
def test_the_backlog_is_reported(make: Callable[[], StreamingLane]) -> None:
    lane = make()
    assert lane.open(0, StreamOptions("m"))
    lane.push(0, np.zeros(3 * RATE, np.float32), 0.0)
    assert lane.backlog_seconds(0) == 3.0
    while lane.ready_work():
        lane.run([0], 0.0)
    assert lane.backlog_seconds(0) < 0.4
