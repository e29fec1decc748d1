"""EngineClient: an engine in a thread, in a process, and after the process was killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conure.engine import startup
from conure.engine.client import EngineClient
from conure.engine.ipc import transport
from conure.engine.ipc.transport import ProcessTransport, ThreadTransport, Transport
from conure.engine.messages import (
    FINAL_EVENTS,
    Audio,
    Cancel,
    Cancelled,
    Clip,
    Close,
    Failed,
    Finished,
    Open,
    StreamEvent,
    StreamOpened,
    StreamOptions,
    StreamTokens,
)
from conure.engine.plan import Plan
from conure.errors import ConureError, EngineFailed, UnknownModel
from conure.models.network import Network
from tests.engine.failing_device import work_until_the_device_fails
from tests.engine.live_model import save_live_model
from tests.engine.test_stream_lane import net, noise, offline
from tests.waiting import PATIENCE

__all__ = ["net"]


class Listener:
    """Collects events, and waits for some of them."""

    def __init__(self) -> None:
        self.answers: list[StreamEvent] = []
        self.ended = asyncio.Event()
        self.restarts = asyncio.Event()
        self.error: ConureError | None = None

    def on_event(self, answer: StreamEvent) -> None:
        self.answers.append(answer)
        if isinstance(answer, FINAL_EVENTS):
            self.ended.set()

    def on_restart(self) -> None:
        self.restarts.set()

    def on_failure(self, error: ConureError) -> None:
        self.error = error
        self.ended.set()

    def tokens(self) -> list[int]:
        return [token.id for answer in self.answers if isinstance(answer, StreamTokens) for token in answer.tokens]


@pytest.fixture(scope="module")
def model(net: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_live_model(net, tmp_path_factory.mktemp("models") / "small")


@asynccontextmanager
async def started(carrier: Transport) -> AsyncIterator[EngineClient]:
    handle = EngineClient(carrier)
    await handle.start()
    try:
        yield handle
    finally:
        await handle.stop()


def plan(model: Path) -> Plan:
    return Plan(live_models=(str(model),), clip_models=(str(model),), device="cpu", max_streams=16)


def send_clip(handle: EngineClient, number: int, samples: np.ndarray) -> None:
    handle.send(Open(number, StreamOptions("small")))
    for begin in range(0, len(samples), 3_000):
        handle.send(Audio(number, samples[begin : begin + 3_000]))
    handle.send(Close(number))


@pytest.mark.parametrize("kind", [ThreadTransport, ProcessTransport])
def test_streams_and_clips_are_transcribed(
    kind: type[ThreadTransport | ProcessTransport], net: Network, model: Path
) -> None:
    clips = [noise(np.random.default_rng(seed), 40_000) for seed in range(3)]

    async def scenario() -> None:
        async with started(kind(plan(model))) as handle:
            card = handle.models_by_name["small"]
            assert card.latencies == (80, 160, 320, 560, 1120)
            assert len(card.capacity) == 5
            listeners = [Listener() for _ in range(6)]
            for index, listener in enumerate(listeners):
                number = handle.register(listener)
                if index < 3:
                    send_clip(handle, number, clips[index])
                else:
                    handle.send(Clip(number, "small", clips[index - 3]))
            for index, listener in enumerate(listeners):
                await asyncio.wait_for(listener.ended.wait(), PATIENCE)
                assert isinstance(listener.answers[-1], Finished)
                assert listener.tokens() == [token for token, _ in offline(net, clips[index % 3], 2)]
            assert isinstance(listeners[0].answers[0], StreamOpened)
            assert handle.receiver_count == 0

    asyncio.run(scenario())


def test_a_killed_engine_is_restarted(net: Network, model: Path) -> None:
    samples = noise(np.random.default_rng(5), 40_000)

    async def scenario() -> None:
        process = ProcessTransport(plan(model))
        async with started(process) as handle:
            listener = Listener()
            number = handle.register(listener)
            handle.send(Open(number, StreamOptions("small")))
            handle.send(Audio(number, samples[:20_000]))
            await asyncio.sleep(0.2)
            assert process._process.pid
            os.kill(process._process.pid, signal.SIGKILL)
            await asyncio.wait_for(listener.restarts.wait(), PATIENCE)
            listener.answers.clear()
            send_clip(handle, number, samples)
            await asyncio.wait_for(listener.ended.wait(), PATIENCE)
            assert listener.tokens() == [token for token, _ in offline(net, samples, 2)]
            assert handle.restarts == 1

    asyncio.run(scenario())


def test_an_engine_with_a_failed_device_is_restarted(
    net: Network, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    samples = noise(np.random.default_rng(6), 40_000)
    monkeypatch.setattr(transport, "_run_engine", work_until_the_device_fails)

    async def scenario() -> None:
        process = ProcessTransport(replace(plan(model), cache_folder=tmp_path))
        async with started(process) as handle:
            listener = Listener()
            number = handle.register(listener)
            handle.send(Open(number, StreamOptions("small", 80)))
            handle.send(Audio(number, samples))
            await asyncio.wait_for(listener.restarts.wait(), PATIENCE)
            assert not any(isinstance(answer, FINAL_EVENTS) for answer in listener.answers)
            listener.answers.clear()
            send_clip(handle, number, samples)
            await asyncio.wait_for(listener.ended.wait(), PATIENCE)
            assert listener.tokens() == [token for token, _ in offline(net, samples, 2)]

    asyncio.run(scenario())
    assert "the engine's device failed; starting it again" in caplog.text


def test_a_thread_engine_does_not_start_on_a_failed_device(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(startup, "open_model", broken)
    with pytest.raises(EngineFailed, match="the device failed: CUDA error: an illegal memory access"):
        asyncio.run(EngineClient(ThreadTransport(plan(model))).start())


def test_a_failed_start_raises_its_cause(tmp_path: Path) -> None:
    async def scenario() -> None:
        for kind in (ThreadTransport, ProcessTransport):
            with pytest.raises(UnknownModel, match="no such model"):
                await EngineClient(kind(Plan(live_models=(str(tmp_path / "none"),)))).start()

    asyncio.run(scenario())


def test_too_many_streams_are_refused(model: Path) -> None:
    async def scenario() -> None:
        async with started(ThreadTransport(Plan(live_models=(str(model),), device="cpu", max_streams=1))) as handle:
            first, second = Listener(), Listener()
            for listener in (first, second):
                handle.send(Open(handle.register(listener), StreamOptions("small", 1120)))
            await asyncio.wait_for(second.ended.wait(), PATIENCE)
            assert isinstance(second.answers[-1], Failed)
            assert second.answers[-1].code == "busy"
            assert second.answers[-1].retry_after
            handle.send(Cancel(1))
            await asyncio.wait_for(first.ended.wait(), PATIENCE)
            assert isinstance(first.answers[-1], Cancelled)

    asyncio.run(scenario())
