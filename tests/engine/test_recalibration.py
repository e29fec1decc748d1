"""A machine that was busy during calibration is calibrated again, and its cache updated."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest

from conure.engine import calibration
from conure.engine.calibration import calibrate
from conure.engine.calibration_cache import CalibrationCache
from conure.engine.lanes.chunk_lane import ChunkLane
from conure.engine.lanes.lane import StreamingLane
from conure.engine.messages import CapacityChanged
from conure.engine.plan import ModelInfo
from conure.engine.recalibration import MAX_INTERVAL, MIN_INTERVAL, CalibratedModel, Recalibration
from conure.engine.step_costs import StepCosts
from conure.models.network import Network
from tests.engine.live_model import talking_network
from tests.engine.test_stream_lane import lane

LATENCIES = (80, 160, 320, 560, 1120)
INFO = ModelInfo("small", "small", "labels.json", b"", 20, latencies=LATENCIES, runner="torch")
SLOTS = 1000


class Machine:
    """A step takes 1 ms, and 0.1 ms a row of 80 ms; on a busy machine, many times that."""

    def __init__(self, busy: float = 1.0) -> None:
        self.busy = busy
        self.measured = 0
        self._random = random.Random(5)

    def measure(self, _: object, latency: int, rows: int) -> float:
        self.measured += 1
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
    monkeypatch.setattr(calibration, "_measure_chunks", machine.measure)
    return machine


@pytest.fixture
def kept(tmp_path: Path) -> CalibrationCache:
    source = tmp_path / "model"
    source.mkdir()
    return CalibrationCache.open(tmp_path / "cache", source, INFO, SLOTS)


def quiet(streams: ChunkLane) -> tuple[int, ...]:
    info, _ = calibrate(INFO, streams, StepCosts())
    return info.capacity


def run_rounds(recalibration: Recalibration, rounds: int) -> list[CapacityChanged]:
    events: list[CapacityChanged] = []
    for _ in range(rounds):
        events += cast(list[CapacityChanged], recalibration.run(recalibration.due))
    return events


@pytest.mark.parametrize("busy", [3.0, 10.0, 40.0])
def test_capacity_grows_with_latency(machine: Machine, streams: ChunkLane, busy: float) -> None:
    machine.busy = busy
    for _ in range(20):
        capacity = quiet(streams)
        assert list(capacity) == sorted(capacity)


def test_recalibration_on_an_idle_machine_raises_the_capacity(
    machine: Machine, streams: ChunkLane, kept: CalibrationCache
) -> None:
    expected = quiet(streams)
    machine.busy, costs = 20.0, StepCosts()
    info, times = calibrate(INFO, streams, costs, kept)
    assert sum(info.capacity) < sum(expected) / 2
    model = CalibratedModel(info, cast(StreamingLane, streams), times, kept)
    recalibration = Recalibration([model], costs, 0.0)
    run_rounds(recalibration, len(LATENCIES))
    machine.busy = 1.0
    events = run_rounds(recalibration, 8 * len(LATENCIES))
    assert events[-1].model == "small"
    assert events[-1].capacity == model.info.capacity == pytest.approx(expected, rel=0.02)
    assert calibrate(INFO, streams, StepCosts(), kept)[0].capacity == model.info.capacity
    assert costs.estimate((streams, 1), 64) == pytest.approx(0.0074, rel=0.05)


def test_the_interval_grows_while_nothing_changes(machine: Machine, streams: ChunkLane) -> None:
    info, times = calibrate(INFO, streams, StepCosts())
    recalibration, before, pauses = (
        Recalibration([CalibratedModel(info, cast(StreamingLane, streams), times)], StepCosts(), 0.0),
        0.0,
        [],
    )
    for _ in range(8):
        pauses.append(recalibration.due - before)
        before = recalibration.due + (len(LATENCIES) - 1) * 0.2
        assert run_rounds(recalibration, len(LATENCIES)) == []
    assert pauses[0] == MIN_INTERVAL
    assert pauses[-1] == pytest.approx(MAX_INTERVAL)
    assert all(less <= more for less, more in pairwise(pauses))


def test_inconsistent_cached_times_are_ignored(machine: Machine, streams: ChunkLane, kept: CalibrationCache) -> None:
    """The validating step takes as long as cached, but other cached times are too long."""
    expected = quiet(streams)
    _, times = calibrate(INFO, streams, StepCosts())
    kept.write(times | {latency: [(rows, 9 * spent) for rows, spent in times[latency]] for latency in (320, 1120)})
    assert calibrate(INFO, streams, StepCosts(), kept)[0].capacity == expected


def test_slots_in_use_are_not_measured(machine: Machine, net: Network) -> None:
    streams = lane(net, 10)
    info, times = calibrate(INFO, streams, StepCosts())
    for number in range(1, 6):
        streams.open(number, calibration.StreamOptions("small"))
    machine.measured = 0
    run_rounds(
        Recalibration([CalibratedModel(info, cast(StreamingLane, streams), times)], StepCosts(), 0.0),
        2 * len(LATENCIES),
    )
    assert machine.measured == 0
    assert len(streams) == 5
