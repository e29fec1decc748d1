"""A machine that was busy when it was measured is measured again, and so is what was kept of it."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest

from conure.engine import calibration as measuring
from conure.engine.calibration import measure
from conure.engine.calibration_cache import CalibrationCache
from conure.engine.lanes.chunk_lane import ChunkLane
from conure.engine.lanes.lane import StreamingLane
from conure.engine.messages import QueueRoom
from conure.engine.plan import ModelInfo
from conure.engine.recalibration import FIRST, LONGEST, CalibratedModel, Recalibration
from conure.engine.step_costs import StepCosts
from conure.models.network import Network
from tests.engine.live_model import talking_network
from tests.engine.test_stream_lane import lane

LATENCIES = (80, 160, 320, 560, 1120)
CARD = ModelInfo("small", "small", "labels.json", b"", 20, latencies=LATENCIES, runner="torch")
SLOTS = 1000


class Machine:
    """Takes a millisecond a turn and a tenth for each row of 80 ms; while others are at work many times that."""

    def __init__(self, busy: float = 1.0) -> None:
        self.busy = busy
        self.turns = 0
        self._random = random.Random(5)

    def turn(self, _: object, latency: int, rows: int) -> float:
        self.turns += 1
        return (0.001 + rows * 0.0001 * latency / 80) * self._random.uniform(max(self.busy / 4, 1.0), self.busy)


@pytest.fixture(scope="module")
def net() -> Network:
    return talking_network()


@pytest.fixture
def streams(net: Network) -> ChunkLane:
    return lane(net, SLOTS)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(measuring, "_turn", machine.turn)
    return machine


@pytest.fixture
def kept(tmp_path: Path) -> CalibrationCache:
    source = tmp_path / "model"
    source.mkdir()
    return CalibrationCache.of(tmp_path / "cache", source, CARD, SLOTS)


def quiet(streams: ChunkLane) -> tuple[int, ...]:
    card, _ = measure(CARD, streams, StepCosts())
    return card.capacity


def looked(look: Recalibration, rounds: int) -> list[QueueRoom]:
    told: list[QueueRoom] = []
    for _ in range(rounds):
        told += cast(list[QueueRoom], look.go_on(look.due))
    return told


@pytest.mark.parametrize("busy", [3.0, 10.0, 40.0])
def test_more_latency_never_holds_fewer(machine: Machine, streams: ChunkLane, busy: float) -> None:
    machine.busy = busy
    for _ in range(20):
        capacity = quiet(streams)
        assert list(capacity) == sorted(capacity)


def test_once_it_is_quiet_it_is_known(machine: Machine, streams: ChunkLane, kept: CalibrationCache) -> None:
    expected = quiet(streams)
    machine.busy, costs = 20.0, StepCosts()
    card, turns = measure(CARD, streams, costs, kept)
    assert sum(card.capacity) < sum(expected) / 2
    model = CalibratedModel(card, cast(StreamingLane, streams), turns, kept)
    look = Recalibration([model], costs, 0.0)
    looked(look, len(LATENCIES))
    machine.busy = 1.0
    told = looked(look, 8 * len(LATENCIES))
    assert told[-1].model == "small"
    assert told[-1].capacity == model.card.capacity == pytest.approx(expected, rel=0.02)
    assert measure(CARD, streams, StepCosts(), kept)[0].capacity == model.card.capacity
    assert costs.guess((streams, 1), 64) == pytest.approx(0.0074, rel=0.05)


def test_it_looks_less_and_less_often_where_nothing_changes(machine: Machine, streams: ChunkLane) -> None:
    card, turns = measure(CARD, streams, StepCosts())
    look, before, pauses = (
        Recalibration([CalibratedModel(card, cast(StreamingLane, streams), turns)], StepCosts(), 0.0),
        0.0,
        [],
    )
    for _ in range(8):
        pauses.append(look.due - before)
        before = look.due + (len(LATENCIES) - 1) * 0.2
        assert looked(look, len(LATENCIES)) == []
    assert pauses[0] == FIRST
    assert pauses[-1] == pytest.approx(LONGEST)
    assert all(less <= more for less, more in pairwise(pauses))


def test_what_contradicts_itself_is_not_believed(machine: Machine, streams: ChunkLane, kept: CalibrationCache) -> None:
    """The turn that is looked at costs what it cost, and others were held up when they were measured."""
    expected = quiet(streams)
    _, turns = measure(CARD, streams, StepCosts())
    kept.write(turns | {latency: [(rows, 9 * spent) for rows, spent in turns[latency]] for latency in (320, 1120)})
    assert measure(CARD, streams, StepCosts(), kept)[0].capacity == expected


def test_rows_that_streams_have_are_left_to_them(machine: Machine, net: Network) -> None:
    streams = lane(net, 10)
    card, turns = measure(CARD, streams, StepCosts())
    for number in range(1, 6):
        streams.open(number, measuring.StreamOptions("small"))
    machine.turns = 0
    looked(
        Recalibration([CalibratedModel(card, cast(StreamingLane, streams), turns)], StepCosts(), 0.0),
        2 * len(LATENCIES),
    )
    assert machine.turns == 0
    assert len(streams) == 5
