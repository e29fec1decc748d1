"""The choice of the next step, and a simulated machine whose clock advances by steps only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conure.engine.admission import capacity, load
from conure.engine.scheduler import ClipStep, ClipWork, ExpectedWork, Scheduler, StreamStep, StreamWork
from conure.engine.step_costs import StepCosts


def test_estimates_follow_recorded_costs() -> None:
    costs = StepCosts()
    assert costs.estimate("a", 4) == 0.0
    costs.record("a", 4, 1.0)
    assert costs.estimate("a", 5) == 1.25
    assert costs.estimate("a", 8) == 2.0
    assert costs.estimate("a", 1) == 1.0
    for _ in range(40):
        costs.record("a", 4, 3.0)
    assert costs.estimate("a", 4) == pytest.approx(3.0, abs=0.01)
    assert costs.estimate("b", 4) == 0.0


def test_estimates_interpolate_between_known_sizes() -> None:
    costs = StepCosts()
    costs.record("a", 1, 1.0)
    costs.record("a", 16, 4.0)
    assert costs.estimate("a", 6) == 2.0
    assert costs.estimate("a", 32) == 8.0


def test_capacity_is_limited_by_the_chunk() -> None:
    costs = StepCosts()
    costs.record("a", 1, 0.010)
    costs.record("a", 32, 0.072)
    assert capacity(costs, "a", 0.08, max_streams=100) == 32
    assert capacity(costs, "a", 0.08, max_streams=20) == 20
    assert capacity(costs, "a", 0.01, max_streams=20) == 0
    both = {"a": 16, "b": 3}
    costs.record("b", 3, 0.05)
    assert load(costs, both, {"a": 0.08, "b": 0.5}) == pytest.approx(0.04 / 0.08 + 0.1)


def test_the_earliest_due_stream_is_batched_with_its_kind() -> None:
    live = [
        StreamWork(1, "slow", 5.0),
        StreamWork(2, "fast", 4.0),
        StreamWork(3, "fast", 9.0),
        StreamWork(4, "slow", 4.5),
    ]
    clips = [ClipWork(7, "clip", 1, 0.0)]
    assert Scheduler(StepCosts()).choose(0.0, live, [], clips) == StreamStep("fast", (2, 3), 2)
    alone = [replace(work, max_streams=1) for work in (live[0], live[3])]
    assert Scheduler(StepCosts()).choose(0.0, alone, [], clips) == StreamStep("slow", (4,), 1)


def test_clips_start_only_if_they_end_in_time() -> None:
    costs = StepCosts()
    costs.record("clip", 1, 0.05)
    costs.record("live", 1, 0.03)
    scheduler, clips = Scheduler(costs), [ClipWork(8, "clip", 1, 2.0), ClipWork(7, "clip", 1, 1.0)]
    assert scheduler.choose(10.0, [], [], clips) == ClipStep(clips[1])
    assert scheduler.choose(10.0, [], [ExpectedWork("live", 10.02, 10.10)], clips) == ClipStep(clips[1])
    assert scheduler.choose(10.0, [], [ExpectedWork("live", 10.0, 10.07)], clips) is None
    assert scheduler.choose(10.0, [], [ExpectedWork("live", 10.06, 10.07)], clips) == ClipStep(clips[1])
    assert scheduler.choose(10.0, [], [], []) is None


def test_partials_and_high_priority_clips_precede_other_clips() -> None:
    costs = StepCosts()
    costs.record("partial", 4, 0.05)
    costs.record("live", 1, 0.03)
    scheduler = Scheduler(costs)
    partials = [
        StreamWork(1, "partial", 5.0, size=2, is_optional=True),
        StreamWork(2, "partial", 6.0, size=2, is_optional=True),
    ]
    old, urgent = ClipWork(7, "clip", 1, 0.0), ClipWork(8, "clip", 1, 3.0, due=5.5)
    assert scheduler.choose(4.0, [*partials, StreamWork(3, "live", 9.0)], [], [old]) == StreamStep("live", (3,), 1)
    assert scheduler.choose(4.0, partials, [], [old, urgent]) == StreamStep("partial", (1, 2), 4)
    assert scheduler.choose(4.0, partials[1:], [], [old, urgent]) == ClipStep(urgent)
    soon = [ExpectedWork("live", 4.01, 4.07)]
    assert scheduler.choose(4.0, partials, soon, [old, urgent]) == ClipStep(urgent)
    assert scheduler.choose(4.0, partials, soon, []) is None


def test_early_audio_fills_the_remaining_time() -> None:
    costs = StepCosts()
    costs.record("a", 1, 0.05)
    costs.record("live", 1, 0.03)
    costs.record("clip", 1, 0.05)
    scheduler = Scheduler(costs)
    ahead = StreamWork(1, "a", 30.0, realtime_from=20.0, arrived_at=2.0)
    live = StreamWork(2, "live", 10.1)
    assert scheduler.choose(10.0, [ahead, live], [], []) == StreamStep("live", (2,), 1)
    assert scheduler.choose(10.0, [ahead], [], []) == StreamStep("a", (1,), 1)
    assert scheduler.choose(10.0, [ahead], [ExpectedWork("live", 10.02, 10.07)], []) is None
    assert scheduler.choose(20.0, [ahead], [ExpectedWork("live", 20.02, 20.07)], []) == StreamStep("a", (1,), 1)


def test_early_audio_alternates_with_clips() -> None:
    older, younger = ClipWork(7, "clip", 1, 1.0), ClipWork(8, "clip", 1, 3.0)
    ahead = StreamWork(1, "a", 30.0, realtime_from=20.0, arrived_at=2.0)
    assert Scheduler(StepCosts()).choose(10.0, [ahead], [], [older, younger]) == ClipStep(older)
    assert Scheduler(StepCosts()).choose(10.0, [ahead], [], [younger]) == StreamStep("a", (1,), 1)


def test_steps_of_early_audio_fit_the_remaining_time() -> None:
    costs = StepCosts()
    costs.record("a", 1, 0.02)
    costs.record("a", 16, 0.32)
    costs.record("live", 1, 0.01)
    ahead = [StreamWork(number, "a", 30.0 + number, realtime_from=20.0) for number in range(16)]
    step = Scheduler(costs).choose(10.0, ahead, [ExpectedWork("live", 10.05, 10.13)], [])
    assert step == StreamStep("a", (0, 1, 2, 3), 4)
    alone = [replace(work, is_exclusive=True) for work in ahead]
    assert Scheduler(costs).choose(10.0, alone, [], []) == StreamStep("a", (0,), 1)


def test_clips_leave_time_for_early_audio_that_becomes_due() -> None:
    """Early audio becomes due, too: a step before that must leave it time."""
    costs = StepCosts()
    costs.record("clip", 1, 0.3)
    ahead = StreamWork(1, "a", 10.2, realtime_from=10.05, arrived_at=5.0)
    costs.record("a", 1, 0.05)
    assert Scheduler(costs).choose(10.0, [ahead], [], [ClipWork(7, "clip", 1, 1.0)]) == StreamStep("a", (1,), 1)


@dataclass
class Source:
    """A stream whose chunks become complete at a steady rate."""

    kind: str
    chunk: float
    first: float
    done: int = 0
    ahead: bool = False
    """All audio has arrived at the start."""

    def whole(self, index: int) -> float:
        return self.first + self.chunk * index

    @property
    def next(self) -> float:
        return self.whole(self.done)


def simulate(sources: list[Source], slices: int, seconds: float) -> tuple[list[float], int]:
    """Delays of all chunks after their due time, and completed slices of clips."""
    costs = StepCosts()
    scheduler, now, late, left = Scheduler(costs), 0.0, [], slices
    while now < seconds:
        live = [
            StreamWork(i, s.kind, s.next + s.chunk, realtime_from=s.next, arrived_at=s.first)
            for i, s in enumerate(sources)
            if s.next <= now or (s.ahead and s.first <= now)
        ]
        expected = [ExpectedWork(s.kind, s.next, s.next + s.chunk) for s in sources if s.next > now and not s.ahead]
        step = scheduler.choose(now, live, expected, [ClipWork(0, "clip", 1, 0.0)] if left else [])
        if isinstance(step, StreamStep):
            cost = 0.01 + 0.002 * len(step.streams)
            costs.record(step.kind, len(step.streams), cost)
            now += cost
            for stream in step.streams:
                source = sources[stream]
                late.append(now - source.next - source.chunk)
                source.done += 1
        elif isinstance(step, ClipStep):
            costs.record("clip", 1, 0.03)
            now, left = now + 0.03, left - 1
        else:
            soon = [now + 0.002] if live or left else []
            now = min([*soon, *(source.next for source in sources if source.next > now)], default=seconds)
    return late, slices - left


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from([0.08, 0.16, 0.56, 1.12]), st.floats(0, 1)), min_size=1, max_size=12),
    st.integers(0, 200),
)
def test_no_stream_is_late_and_clips_fill_the_remaining_time(chosen: list[tuple[float, float]], slices: int) -> None:
    sources = [Source(f"{chunk}", chunk, first) for chunk, first in chosen]
    late, done = simulate(sources, slices, seconds=20.0)
    # The cost of the first step of each kind is unknown.
    assert sum(lag > 0.0 for lag in late) <= 4
    assert max(late, default=0.0) < 0.05
    assert all(source.next > 20.0 - 2 * source.chunk for source in sources)
    load = sum({kind: 0.01 / float(kind) for kind in {s.kind for s in sources}}.values()) * len(sources)
    if load < 0.5:
        assert done == slices


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from([0.08, 0.16, 0.56]), st.floats(0, 1)), min_size=1, max_size=6),
    st.lists(st.tuples(st.sampled_from([0.08, 0.16, 1.12]), st.floats(0, 1)), min_size=1, max_size=4),
    st.integers(0, 2_000),
)
def test_early_recordings_delay_no_stream(
    live: list[tuple[float, float]], ahead: list[tuple[float, float]], slices: int
) -> None:
    """Nor are they late themselves, under any other load."""
    sources = [Source(f"{chunk}", chunk, first) for chunk, first in live]
    sources += [Source(f"ahead {chunk}", chunk, first, ahead=True) for chunk, first in ahead]
    late, _ = simulate(sources, slices, seconds=20.0)
    assert sum(lag > 0.0 for lag in late) <= 8
    assert max(late, default=0.0) < 0.05
    assert all(source.next > 20.0 - 2 * source.chunk for source in sources)
    if len(live) <= 2 and len(ahead) == 1 and not slices:  # twice as fast as speech, where there is time for it
        assert sources[-1].next > 40.0


def test_a_silent_stream_is_not_waited_for() -> None:
    stream = ExpectedWork("live", 10.0, 10.08)
    assert not stream.is_silent(9.0)
    assert not stream.is_silent(10.5)
    assert stream.is_silent(12.0)
