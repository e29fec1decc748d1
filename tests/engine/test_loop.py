"""The loop: under any requests, every stream ends exactly once and no slot is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from conure.engine.backends.cuda.graph_capture import no_capture
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.engine.backends.torch_eager.stream_runner import TorchStreamRunner
from conure.engine.lanes.chunk_lane import ChunkLane
from conure.engine.lanes.clip_lane import ClipLane
from conure.engine.lanes.lane import StreamingLane
from conure.engine.lanes.segment_lane import SegmentLane
from conure.engine.lanes.stream_lane import StreamLane
from conure.engine.loop import Engine
from conure.engine.messages import (
    DEVICE_FAILED,
    FINAL_EVENTS,
    Audio,
    Cancel,
    Cancelled,
    Clip,
    Close,
    Configure,
    EngineEvent,
    Failed,
    Finalize,
    Finished,
    Marker,
    Open,
    PartialTokens,
    Request,
    StreamEvent,
    StreamOpened,
    StreamOptions,
    StreamTokens,
)
from conure.models.network import Network
from conure.vad.endpointing import Endpointing
from conure.vad.silero import load_silero
from tests.engine.known_words import TOKENIZER, KnowingRunner
from tests.engine.scarce import ScarceRunner
from tests.engine.test_stream_lane import device_lane, lane, net, noise, offline
from tests.vad.digits import recording
from tests.waiting import PATIENCE

__all__ = ["net"]


class Listener:
    """Collects events; waits for streams to end."""

    def __init__(self) -> None:
        self.answers: list[StreamEvent] = []
        self.changed = threading.Condition()

    def __call__(self, answers: list[StreamEvent | EngineEvent]) -> None:
        with self.changed:
            self.answers += [answer for answer in answers if not isinstance(answer, EngineEvent)]
            self.changed.notify_all()

    def wait_for_ends(self, count: int) -> None:
        with self.changed:
            done = self.changed.wait_for(
                lambda: sum(isinstance(a, FINAL_EVENTS) for a in self.answers) >= count, PATIENCE
            )
        assert done

    def wait_for(self, wanted: Callable[[StreamEvent], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: any(wanted(answer) for answer in self.answers), PATIENCE)

    def of(self, stream: int) -> list[StreamEvent]:
        return [answer for answer in self.answers if answer.stream == stream]


Make = Callable[..., ChunkLane]


def on_device(net: Network, slots: int = 8) -> ChunkLane:
    return device_lane(net, no_capture, slots)


@pytest.fixture(params=[lane, on_device], ids=["direct", "device"])
def make(request: pytest.FixtureRequest) -> Make:
    """A lane that emits events when a step returns, or one that emits them with the next step."""
    made: Make = request.param
    return made


def clip_runner(streams: StreamLane) -> TorchClipRunner:
    runner = streams.runner
    assert isinstance(runner, TorchStreamRunner)
    return TorchClipRunner(runner.network, runner.feature_extractor, torch.device("cpu"))


@contextmanager
def running(streams: StreamingLane) -> Iterator[tuple[Engine, Listener]]:
    listener = Listener()
    clips = {"small": ClipLane(clip_runner(streams))} if isinstance(streams, StreamLane) else {}
    engine = Engine({"small": streams}, clips, listener)
    thread = threading.Thread(target=engine.run)
    thread.start()
    try:
        yield engine, listener
    finally:
        engine.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_events_of_a_stream_are_in_order(net: Network, make: Make) -> None:
    samples = noise(np.random.default_rng(0), 40_000)
    with running(make(net)) as (engine, listener):
        engine.submit(Open(1, StreamOptions("small")))
        for begin in range(0, len(samples), 3_000):
            engine.submit(Audio(1, samples[begin : begin + 3_000]))
        engine.submit(Finalize(1, 7))
        engine.submit(Close(1))
        listener.wait_for_ends(1)
    answers = listener.of(1)
    assert isinstance(answers[0], StreamOpened)
    assert isinstance(answers[-1], Finished)
    assert Marker(1, 7) in answers
    tokens = [token.id for answer in answers if isinstance(answer, StreamTokens) for token in answer.tokens]
    assert tokens == [token for token, _ in offline(net, samples, 2)]


def test_clips_are_transcribed_beside_streams(net: Network) -> None:
    rng = np.random.default_rng(1)
    clips = {number: noise(rng, int(rng.integers(1_600, 60_000))) for number in range(10, 18)}
    samples = noise(rng, 40_000)
    with running(lane(net)) as (engine, listener):
        engine.submit(Open(1, StreamOptions("small", latency_ms=160)))
        for number, clip in clips.items():
            engine.submit(Clip(number, "small", clip))
        engine.submit(Cancel(13))
        for begin in range(0, len(samples), 1_600):
            engine.submit(Audio(1, samples[begin : begin + 1_600]))
        engine.submit(Close(1))
        engine.submit(Clip(20, "large", samples))
        listener.wait_for_ends(10)
    assert listener.of(13) == [Cancelled(13)]
    assert [answer.code for answer in listener.of(20) if isinstance(answer, Failed)] == ["unknown_model"]
    del clips[13]
    for number, clip in clips.items():
        tokens, finished = listener.of(number)
        assert isinstance(tokens, StreamTokens)
        assert [(token.id, token.start) for token in tokens.tokens] == [
            (token, pytest.approx(min(step * 0.08, len(clip) / 16_000), abs=1e-3))
            for token, step in offline(net, clip, 2)
        ]
        assert finished == Finished(number)


def test_a_clip_model_serves_live_streams() -> None:
    samples, words = recording([(0.0, 3, "lucas"), (0.2, 1, "lucas"), (0.2, 4, "lucas")])
    streams = SegmentLane(KnowingRunner([(samples, words)]), load_silero(), TOKENIZER, slots=1)  # type: ignore[arg-type]
    with running(streams) as (engine, listener):
        engine.submit(Open(1, StreamOptions("small")))
        engine.submit(Audio(1, samples[:14_000]))
        listener.wait_for(lambda answer: isinstance(answer, PartialTokens) and len(answer.tokens) > 0)
        engine.submit(Audio(1, samples[14_000:]))
        engine.submit(Close(1))
        listener.wait_for_ends(1)
    tokens = [TOKENIZER.pieces[token.id] for a in listener.of(1) if isinstance(a, StreamTokens) for token in a.tokens]
    assert tokens == [f"▁{word.text}" for word in words]
    assert isinstance(listener.of(1)[-1], Finished)


def test_refused_streams_get_a_reason(net: Network, make: Make) -> None:
    with running(make(net, slots=1)) as (engine, listener):
        engine.submit(Open(1, StreamOptions("large")))
        engine.submit(Open(2, StreamOptions("small", latency_ms=240)))
        engine.submit(Open(3, StreamOptions("small")))
        engine.submit(Open(4, StreamOptions("small")))
        engine.submit(Cancel(3))
        listener.wait_for_ends(4)
    codes = {answer.stream: answer.code for answer in listener.answers if isinstance(answer, Failed)}
    assert codes == {1: "unknown_model", 2: "bad_option", 4: "busy"}
    hints = [answer.hint for answer in listener.answers if isinstance(answer, Failed)]
    assert hints[:2] == ["available: small", "available: 80, 160, 320, 560, 1120"]
    assert listener.of(3) == [StreamOpened(3), Cancelled(3)]


def test_a_stream_that_is_too_fast_fails(net: Network, make: Make) -> None:
    streams = make(net)
    with running(streams) as (engine, listener):
        engine.submit(Open(1, StreamOptions("small")))
        engine.submit(Audio(1, np.zeros(181 * 16_000, np.float32)))
        engine.submit(Audio(1, np.zeros(10, np.float32)))
        listener.wait_for_ends(1)
    (failed,) = [answer for answer in listener.of(1) if isinstance(answer, Failed)]
    assert failed.code == "too_fast"
    assert streams.slots.free == streams.slots.count


def test_open_streams_fail_when_the_engine_stops(net: Network, make: Make) -> None:
    with running(make(net)) as (engine, listener):
        engine.submit(Open(1, StreamOptions("small")))
    assert [answer.code for answer in listener.of(1) if isinstance(answer, Failed)] == ["stopped"]


@pytest.mark.parametrize("seed", range(3))
def test_everything_ends_once(net: Network, make: Make, seed: int) -> None:
    rng = np.random.default_rng(seed)
    streams = make(net, slots=3)
    count = 12
    with running(streams) as (engine, listener):
        for stream in range(count):
            engine.submit(Open(stream, StreamOptions("small", latency_ms=int(rng.choice([80, 160, 560])))))
            for _ in range(int(rng.integers(0, 6))):
                request = rng.integers(8)
                if request == 0:
                    engine.submit(Finalize(stream, 1))
                elif request == 1:
                    engine.submit(Configure(stream, Endpointing(silence=0.3)))
                elif request == 2:
                    engine.submit(Cancel(stream))
                else:
                    engine.submit(Audio(stream, noise(rng, int(rng.integers(0, 9_000)))))
            engine.submit(Close(stream))
            if rng.random() < 0.5:
                engine.submit(Cancel(stream))
        listener.wait_for_ends(count)
    for stream in range(count):
        answers = listener.of(stream)
        assert sum(isinstance(answer, FINAL_EVENTS) for answer in answers) == 1
        assert isinstance(answers[-1], FINAL_EVENTS)
    assert streams.slots.free == 3
    assert len(streams) == 0


def test_clips_that_do_not_fit_do_not_end_the_engine(net: Network) -> None:
    rng = np.random.default_rng(2)
    clips = {number: noise(rng, seconds * 16_000) for number, seconds in enumerate((2, 8, 1, 3, 2))}
    scarce = ClipLane(ScarceRunner(clip_runner(lane(net)), 5.0))
    listener = Listener()
    engine = Engine({}, {"small": scarce}, listener)
    thread = threading.Thread(target=engine.run)
    thread.start()
    for number, clip in clips.items():
        engine.submit(Clip(number, "small", clip))
    listener.wait_for_ends(5)
    engine.submit(Clip(9, "small", clips[0]))
    listener.wait_for_ends(6)
    engine.stop()
    thread.join(PATIENCE)
    assert [type(answer) for answer in listener.of(1)] == [Failed]
    for number in (0, 2, 3, 4, 9):
        tokens, finished = listener.of(number)
        assert isinstance(tokens, StreamTokens)
        expected = [token for token, _ in offline(net, clips[number % 9], 2)]
        assert [token.id for token in tokens.tokens] == expected
        assert finished == Finished(number)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_unexpected_error_fails_all_streams(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = lane(net)

    def broken(*_: object) -> None:
        raise RuntimeError("the card is gone")

    monkeypatch.setattr(streams, "run", broken)
    with running(streams) as (engine, listener):
        for stream in (1, 2):
            engine.submit(Open(stream, StreamOptions("small")))
        engine.submit(Audio(2, np.zeros(9_000, np.float32)))
        listener.wait_for_ends(2)
    assert {answer.code for answer in listener.answers if isinstance(answer, Failed)} == {"engine_failed"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("method", "trigger"), [("open", Open(3, StreamOptions("small"))), ("run", Audio(1, np.zeros(9_000, np.float32)))]
)
def test_a_device_failure_fails_all_streams(
    net: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str, trigger: Request
) -> None:
    streams = lane(net)

    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA")

    with running(streams) as (engine, listener):
        engine.submit(Open(1, StreamOptions("small")))
        engine.submit(Clip(2, "small", np.zeros(90_000, np.float32)))
        listener.wait_for(lambda answer: isinstance(answer, StreamOpened))
        monkeypatch.setattr(streams, method, broken)
        engine.submit(trigger)
        listener.wait_for_ends(1)
    failed = [answer for answer in listener.answers if isinstance(answer, Failed)]
    assert 1 in {answer.stream for answer in failed}
    assert {answer.code for answer in failed} == {DEVICE_FAILED}
    assert {answer.message for answer in failed} == {"the device failed: CUDA error: device-side assert triggered"}
    assert "the device failed: CUDA error: device-side assert triggered" in caplog.text
