"""Step times are measured once, cached, and used at the next start if they are still valid."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conure.engine import calibration
from conure.engine.backends.cuda.graph_capture import no_capture
from conure.engine.calibration import calibrate
from conure.engine.calibration_cache import CalibrationCache
from conure.engine.lanes.chunk_lane import ChunkLane
from conure.engine.plan import ModelInfo
from conure.engine.step_costs import StepCosts
from conure.models.network import Network
from tests.engine.live_model import talking_network
from tests.engine.test_stream_lane import device_lane, lane

INFO = ModelInfo("small", "small", "labels.json", b"", 20, latencies=(80, 160), runner="torch")
SLOTS = 70


class Machine:
    """A simulated step takes some milliseconds a row; measurements are counted."""

    def __init__(self) -> None:
        self.milliseconds, self.measured = 1.0, 0

    def measure(self, lane: ChunkLane, latency: int, rows: int) -> float:
        self.measured += 1
        return rows * self.milliseconds / 1000


@pytest.fixture(scope="module")
def net() -> Network:
    return talking_network()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(calibration, "_measure_chunks", machine.measure)
    return machine


@pytest.fixture
def streams(net: Network) -> ChunkLane:
    return lane(net, SLOTS)


def kept_in(folder: Path, info: ModelInfo = INFO) -> CalibrationCache:
    source = folder / "model"
    source.mkdir(exist_ok=True)
    return CalibrationCache.open(folder / "cache", source, info, SLOTS)


def test_cached_step_times_are_used(tmp_path: Path, machine: Machine, streams: ChunkLane) -> None:
    first, costs = calibrate(INFO, streams, StepCosts(), kept_in(tmp_path))[0], StepCosts()
    assert first.capacity == (70, 70)
    assert machine.measured == 6
    assert calibrate(INFO, streams, costs, kept_in(tmp_path))[0] == first
    assert machine.measured == 6 + calibration.CHECKS
    assert costs.estimate((streams, 2), 64) == pytest.approx(0.064)


@pytest.mark.parametrize(("milliseconds", "capacity"), [(4.0, (18, 36)), (0.1, (70, 70))])
def test_a_machine_of_another_speed_is_calibrated_again(
    tmp_path: Path, machine: Machine, streams: ChunkLane, milliseconds: float, capacity: tuple[int, ...]
) -> None:
    """A slower machine has a lower capacity."""
    calibrate(INFO, streams, StepCosts(), kept_in(tmp_path))
    machine.milliseconds = milliseconds
    assert calibrate(INFO, streams, StepCosts(), kept_in(tmp_path))[0].capacity == capacity
    machine.measured = 0
    assert calibrate(INFO, streams, StepCosts(), kept_in(tmp_path))[0].capacity == capacity
    assert machine.measured == calibration.CHECKS


def test_a_cache_of_another_model_or_version_is_ignored(tmp_path: Path, machine: Machine, streams: ChunkLane) -> None:
    kept = kept_in(tmp_path)
    calibrate(INFO, streams, StepCosts(), kept)
    assert kept.read()
    assert kept_in(tmp_path, replace(INFO, runner="native int8")).read() is None
    assert replace(kept, about=kept.about | {"slots": 71}).read() is None
    for harm in ("", "[]", json.dumps({"about": kept.about, "turns": [[80, [[1, 0.1]]]]})):
        kept.path.write_text(harm)
        assert kept.read() is None


def test_an_unwritable_cache_is_no_error(tmp_path: Path, machine: Machine, streams: ChunkLane) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    assert calibrate(INFO, streams, StepCosts(), kept_in(tmp_path))[0].capacity == (70, 70)


def test_the_largest_gpu_step_is_measured(net: Network, machine: Machine) -> None:
    """So that admission does not depend on an extrapolated cost."""
    streams = device_lane(net, no_capture, slots=70)
    assert list(calibration._measure_sizes(streams, 80)) == [(1, 0.001), (8, 0.008), (64, 0.064), (70, 0.07)]


def test_a_gpu_step_is_measured_to_its_end(net: Network) -> None:
    streams = device_lane(net, no_capture)
    assert calibration._measure_chunks(streams, 160, 3) > 0
    assert streams.is_drained
    assert len(streams) == 0


def test_measured_slots_are_freed(net: Network) -> None:
    streams = lane(net, SLOTS)
    before = streams.state
    assert calibrate(INFO, streams, StepCosts())[0].capacity
    assert streams.state is not before
    assert not streams.state.encoder.started.any()
