"""Noisy step times become consistent: monotone, and never above a measurement."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from conure.engine.calibration_checks import StepTimes, find_doubtful, find_impossible, make_consistent, with_step
from conure.engine.step_costs import StepCosts

LATENCIES = (80, 160, 320, 560, 1120)
ROWS = (1, 8, 64)
NOISE = st.lists(st.floats(1.0, 20.0), min_size=15, max_size=15)


def truth() -> StepTimes:
    """Step times with a fixed cost, a cost per row and a cost per encoder frame."""
    return {latency: [(rows, 0.001 + rows * (0.0002 + latency * 2e-6)) for rows in ROWS] for latency in LATENCIES}


def noisy(factors: list[float]) -> StepTimes:
    noise = iter(factors)
    return {latency: [(rows, seconds * next(noise)) for rows, seconds in pairs] for latency, pairs in truth().items()}


def test_consistent_times_are_unchanged() -> None:
    assert make_consistent(truth()) == truth()
    assert find_impossible(truth()) == find_doubtful(truth()) == []


@given(NOISE)
def test_consistent_times_are_monotone(factors: list[float]) -> None:
    found = make_consistent(noisy(factors))
    for pairs in found.values():
        assert [seconds for _, seconds in pairs] == sorted(seconds for _, seconds in pairs)
    for shorter, longer in pairwise(LATENCIES):
        for (_, less), (_, more) in zip(found[shorter], found[longer], strict=True):
            assert less <= more <= less * longer / shorter * (1 + 1e-9)
    assert find_impossible(found) == []


@given(NOISE)
def test_consistent_times_are_between_truth_and_measurement(factors: list[float]) -> None:
    measured = noisy(factors)
    for latency, pairs in make_consistent(measured).items():
        for (rows, seconds), (_, most), (_, least) in zip(pairs, measured[latency], truth()[latency], strict=True):
            assert least * (1 - 1e-9) <= seconds <= most, (latency, rows)


def test_a_delayed_step_is_found() -> None:
    for latency in LATENCIES:
        for place, rows in enumerate(ROWS):
            times = truth()
            times[latency] = [
                (size, seconds * (30 if at == place else 1)) for at, (size, seconds) in enumerate(times[latency])
            ]
            assert (latency, rows) in find_doubtful(times)


def test_the_fastest_measurement_counts() -> None:
    times = truth()
    assert with_step(times, 80, 8, 1.0) == times
    assert dict(with_step(times, 80, 8, 1e-6)[80])[8] == 1e-6


def test_rows_measured_at_other_latencies_are_estimated() -> None:
    times = truth() | {1120: truth()[1120][:2]}
    found = make_consistent(times)
    assert [rows for rows, _ in found[1120]] == list(ROWS)
    assert found[1120][2][1] <= found[560][2][1] * 2


def test_smaller_steps_correct_a_baseline_of_a_busy_machine() -> None:
    """Steps of 8 streams show that the machine is idle; 40 streams are then not refused for the baseline of 64."""
    costs = StepCosts()
    for rows, seconds in ((1, 0.02), (8, 0.1), (64, 0.8)):
        costs.set_baseline("a", rows, seconds)
    assert costs.estimate("a", 64) == 0.8
    for _ in range(100):
        costs.record("a", 8, 0.01)
    assert abs(costs.estimate("a", 64) - 0.08) < 0.001
    for _ in range(100):
        costs.record("a", 8, 0.5)
    assert costs.estimate("a", 64) == 0.8


def test_a_recorded_spike_expires() -> None:
    costs = StepCosts()
    costs.set_baseline("a", 1, 0.001)
    costs.set_baseline("a", 64, 0.064)
    costs.record("a", 40, 10.0)
    assert costs.estimate("a", 40) > 1.0
    for _ in range(1000):
        costs.record("a", 4, 0.004)
    assert abs(costs.estimate("a", 40) - 0.04) < 0.001
