"""A machine that was busy when it was measured is measured again, and so is what was kept of it."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest

from conure.engine import measuring
from conure.engine.chunk_lane import ChunkLane
from conure.engine.cost import Costs
from conure.engine.kept_turns import KeptTurns
from conure.engine.live_lane import LiveLane
from conure.engine.measuring import measure
from conure.engine.messages import Room
from conure.engine.plan import ModelCard
from conure.engine.second_look import FIRST, LONGEST, Measured, SecondLook
from conure.models.network import Network
from tests.engine.live_model import talking_network
from tests.engine.test_stream_lane import lane

LATENCIES = (80, 160, 320, 560, 1120)
CARD = ModelCard("small", "small", "labels.json", b"", 20, latencies=LATENCIES, runner="torch")
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
def kept(tmp_path: Path) -> KeptTurns:
    source = tmp_path / "model"
    source.mkdir()
    return KeptTurns.of(tmp_path / "cache", source, CARD, SLOTS)


def quiet(streams: ChunkLane) -> tuple[int, ...]:
    card, _ = measure(CARD, streams, Costs())
    return card.capacity


def looked(look: SecondLook, rounds: int) -> list[Room]:
    told: list[Room] = []
    for _ in range(rounds):
        told += cast(list[Room], look.go_on(look.due))
    return told


@pytest.mark.parametrize("busy", [3.0, 10.0, 40.0])
def test_more_latency_never_holds_fewer(machine: Machine, streams: ChunkLane, busy: float) -> None:
    machine.busy = busy
    for _ in range(20):
        capacity = quiet(streams)
        assert list(capacity) == sorted(capacity)


def test_once_it_is_quiet_it_is_known(machine: Machine, streams: ChunkLane, kept: KeptTurns) -> None:
    expected = quiet(streams)
    machine.busy, costs = 20.0, Costs()
    card, turns = measure(CARD, streams, costs, kept)
    assert sum(card.capacity) < sum(expected) / 2
    model = Measured(card, cast(LiveLane, streams), turns, kept)
    look = SecondLook([model], costs, 0.0)
    looked(look, len(LATENCIES))
    machine.busy = 1.0
    told = looked(look, 8 * len(LATENCIES))
    assert told[-1].model == "small"
    assert told[-1].capacity == model.card.capacity == pytest.approx(expected, rel=0.02)
    assert measure(CARD, streams, Costs(), kept)[0].capacity == model.card.capacity
    assert costs.guess((streams, 1), 64) == pytest.approx(0.0074, rel=0.05)


def test_it_looks_less_and_less_often_where_nothing_changes(machine: Machine, streams: ChunkLane) -> None:
    card, turns = measure(CARD, streams, Costs())
    look, before, pauses = SecondLook([Measured(card, cast(LiveLane, streams), turns)], Costs(), 0.0), 0.0, []
    for _ in range(8):
        pauses.append(look.due - before)
        before = look.due + (len(LATENCIES) - 1) * 0.2
        assert looked(look, len(LATENCIES)) == []
    assert pauses[0] == FIRST
    assert pauses[-1] == pytest.approx(LONGEST)
    assert all(less <= more for less, more in pairwise(pauses))


def test_what_contradicts_itself_is_not_believed(machine: Machine, streams: ChunkLane, kept: KeptTurns) -> None:
    """The turn that is looked at costs what it cost, and others were held up when they were measured."""
    expected = quiet(streams)
    _, turns = measure(CARD, streams, Costs())
    kept.write(turns | {latency: [(rows, 9 * spent) for rows, spent in turns[latency]] for latency in (320, 1120)})
    assert measure(CARD, streams, Costs(), kept)[0].capacity == expected


def test_rows_that_streams_have_are_left_to_them(machine: Machine, net: Network) -> None:
    streams = lane(net, 10)
    card, turns = measure(CARD, streams, Costs())
    for number in range(1, 6):
        streams.open(number, measuring.StreamOptions("small"))
    machine.turns = 0
    looked(SecondLook([Measured(card, cast(LiveLane, streams), turns)], Costs(), 0.0), 2 * len(LATENCIES))
    assert machine.turns == 0
    assert len(streams) == 5
