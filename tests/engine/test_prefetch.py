"""Early audio, which arrives faster than real time, is processed in remaining time until real time catches up."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest

from conure.engine.backends.cuda.graph_capture import no_capture
from conure.engine.lanes.chunk_lane import LEAD_SECONDS
from conure.engine.lanes.lane import StreamingLane
from conure.engine.lanes.segment_lane import SegmentLane
from conure.engine.loop import FILLER_POLL_INTERVAL, Engine
from conure.engine.messages import StreamOptions
from conure.engine.scheduler import ExpectedWork, StreamWork
from conure.engine.step_costs import StepCosts
from conure.models.network import Network
from conure.vad.silero import load_silero
from tests.engine.known_words import TOKENIZER, KnowingRunner
from tests.engine.test_stream_lane import device_lane, lane, net, noise
from tests.vad.digits import recording

__all__ = ["net"]

RATE, CHUNK = 16_000, 0.16
PACKET = RATE // 50
Make = Callable[[Network], StreamingLane]


@pytest.fixture(params=["direct", "device"])
def chunks(request: pytest.FixtureRequest, net: Network) -> StreamingLane:
    made = lane(net) if request.param == "direct" else device_lane(net, no_capture)
    assert made.open(1, StreamOptions("small", latency_ms=160))
    return made


def work_of(streams: StreamingLane) -> StreamWork | None:
    return next(iter(streams.ready_work()), None)


def speak(streams: StreamingLane, samples: np.ndarray, now: float) -> list[tuple[float, StreamWork]]:
    """Sends in real time, processing each chunk when it is complete; returns the times and the work."""
    found = []
    for begin in range(0, len(samples), PACKET):
        now += PACKET / RATE
        streams.push(1, samples[begin : begin + PACKET], now)
        while work := work_of(streams):
            found.append((now, work))
            streams.run([1], now)
    return found


def test_live_audio_is_never_early(chunks: StreamingLane) -> None:
    rng = np.random.default_rng(0)
    found = speak(chunks, noise(rng, 3 * RATE), 100.0)
    assert len(found) >= 17
    for now, work in found:
        assert work.realtime_from < now
        assert work.due == pytest.approx(now + CHUNK, abs=0.03)


def test_a_recording_sent_at_once_is_early_until_its_real_time(chunks: StreamingLane) -> None:
    rng = np.random.default_rng(0)
    chunks.push(1, noise(rng, 20 * RATE), 100.0)
    found = []
    while work := work_of(chunks):
        found.append(work)
        chunks.run([1], 100.0)
    steps = np.diff([work.due for work in found])
    np.testing.assert_allclose(steps, CHUNK, atol=1e-6)
    assert found[0].realtime_from < 100.0
    assert found[-1].due == pytest.approx(119.0, abs=2 * CHUNK)
    for work in found:
        assert work.realtime_from == pytest.approx(work.due - CHUNK - LEAD_SECONDS)


def test_a_stream_that_was_early_is_live_once_processed(chunks: StreamingLane) -> None:
    rng = np.random.default_rng(0)
    chunks.push(1, noise(rng, 20 * RATE), 100.0)
    while work_of(chunks):
        chunks.run([1], 101.0)
    for now, work in speak(chunks, noise(rng, RATE), 101.0)[1:]:
        assert work.due == pytest.approx(now + CHUNK, abs=0.03)


def test_overdue_audio_is_not_early(net: Network) -> None:
    """After a crash the new engine gets the duration of the overdue audio."""
    streams, rng = lane(net), np.random.default_rng(0)
    assert streams.open(1, StreamOptions("small", latency_ms=160), overdue_seconds=8.0)
    streams.push(1, noise(rng, 12 * RATE), 100.0)
    found = []
    while work := work_of(streams):
        found.append(work)
        streams.run([1], 100.0)
    assert all(work.realtime_from < 100.0 for work in found[:49])
    assert found[-1].realtime_from > 100.0


def test_the_end_of_an_early_recording(chunks: StreamingLane) -> None:
    rng = np.random.default_rng(0)
    chunks.push(1, noise(rng, 2 * RATE), 100.0)
    chunks.finalize(1, None, 100.0)
    found = []
    while work := work_of(chunks):
        found.append(work)
        chunks.run([1], 100.0)
        if not len(chunks):
            break
        if chunks.drain():
            break
    assert found[-1].due <= 101.0 + CHUNK + 1e-6


def test_utterances_of_a_recording_are_early() -> None:
    samples, words = recording([(0.5, 3, "lucas"), (1.0, 1, "lucas"), (1.5, 4, "lucas")])
    samples = np.concatenate([samples, np.zeros(20 * RATE, np.float32)])
    streams = SegmentLane(KnowingRunner([(samples, words)]), load_silero(), TOKENIZER, slots=1)  # type: ignore[arg-type]
    assert streams.open(1, StreamOptions("small"))
    streams.push(1, samples, 100.0)
    ends = 0
    while work := work_of(streams):
        kind = work.kind[1]  # type: ignore[index]
        if kind == "final" and not work.kind[3]:  # type: ignore[index]
            ends += 1
            assert work.is_exclusive
            assert 100.0 < work.due < 100.0 + len(samples) / RATE
            assert work.realtime_from < work.due - LEAD_SECONDS
        streams.run([1], 100.0)
    assert ends == 3


class Waiting:
    """A lane with one early stream, while another will soon have a chunk."""

    def ready_work(self) -> list[StreamWork]:
        return [StreamWork(1, "ahead", 30.0, realtime_from=20.0)]

    def expected_work(self) -> list[ExpectedWork]:
        return [ExpectedWork("live", 10.02, 10.07)]


@pytest.mark.parametrize(("now", "runs"), [(9.0, True), (10.0, False), (20.0, True)])
def test_early_audio_waits_for_live_streams(now: float, runs: bool) -> None:
    costs = StepCosts()
    costs.record("ahead", 1, 0.05)
    costs.record("live", 1, 0.03)
    ran: list[object] = []
    loop = Engine({"m": cast(StreamingLane, Waiting())}, {}, lambda _: None, clock=lambda: now, costs=costs)
    loop._streams = {1: cast(StreamingLane, Waiting())}
    loop._run_streams = lambda *turn: ran.append(turn)  # type: ignore[method-assign]
    timeout = loop._run_next()
    assert bool(ran) is runs
    assert timeout == (0.0 if runs else FILLER_POLL_INTERVAL)
