"""An engine that is killed repeatedly under steady load: every request is answered once and in order."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from conure import metrics
from conure.engine import client as handles
from conure.engine import watchdog
from conure.engine.client import EngineClient
from conure.engine.ipc import transport
from conure.engine.ipc.transport import ProcessTransport, SocketTransport
from conure.engine.messages import Audio, Finalize, Marker, Open, StreamEvent, StreamOptions
from conure.engine.plan import Plan
from conure.engine.watchdog import MAX_STARTS
from conure.errors import ConureError, EngineFailed
from conure.event_loop import new_event_loop
from tests.engine.stub_engine import StubListener, StubProcess

KILLS = 50
STREAMS = 10
PATIENCE = 120.0
SHORT = 0.2
"""Seconds for one step of a start."""
TICK = 0.002
AT_ONCE = 10
"""Requests in a tick: some 5,000 in a second, where the machine keeps up."""
BETWEEN = 0.03
"""Seconds from one kill to the next."""
SAMPLES = np.zeros(160, np.float32)
LOOPS = pytest.mark.parametrize("loop", [new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
Loop = Callable[[], asyncio.AbstractEventLoop]


class MarkerStream:
    """A stream that requests one marker after the other, and repeats those that a dead engine did not return."""

    def __init__(self, handle: EngineClient) -> None:
        self.received: list[int] = []
        self.requested = 0
        self.error: ConureError | None = None
        self._handle = handle
        self._waiting: deque[int] = deque()
        self._number = handle.register(self)
        self._open()

    @property
    def is_done(self) -> bool:
        return not self._waiting

    def request_marker(self) -> None:
        self._waiting.append(self.requested)
        self._send_marker(self.requested)
        self.requested += 1

    def on_event(self, answer: StreamEvent) -> None:
        if isinstance(answer, Marker):
            self.received.append(answer.marker)
            assert answer.marker == self._waiting.popleft()

    def on_restart(self) -> None:
        self._open()
        for marker in self._waiting:
            self._send_marker(marker)

    def on_failure(self, error: ConureError) -> None:
        self.error = error

    def _open(self) -> None:
        self._handle.send(Open(self._number, StreamOptions("stub")))

    def _send_marker(self, marker: int) -> None:
        self._handle.send(Audio(self._number, SAMPLES))
        self._handle.send(Finalize(self._number, marker))


async def until(come_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not come_true():
            await asyncio.sleep(TICK)


async def endure(handle: EngineClient, kill: Callable[[], None]) -> None:
    """Steady load while the engine is killed `kills` times; then all markers must have arrived."""
    await handle.start()
    streams = [MarkerStream(handle) for _ in range(STREAMS)]
    next_stream = itertools.cycle(streams)
    loop = asyncio.get_running_loop()
    for kills in range(1, KILLS + 1):
        received, over = sum(len(stream.received) for stream in streams), loop.time() + BETWEEN
        while loop.time() < over or sum(len(stream.received) for stream in streams) == received:
            for _ in range(AT_ONCE):
                next(next_stream).request_marker()
            await asyncio.sleep(TICK)
            assert not any(stream.error for stream in streams)
        kill()
        await until(lambda kills=kills: handle.restarts >= kills)  # type: ignore[misc]
    for stream in streams:
        stream.request_marker()
    await until(lambda: all(stream.is_done for stream in streams))
    assert [stream.received for stream in streams] == [list(range(stream.requested)) for stream in streams]
    assert handle.restarts == KILLS
    assert handle.is_ready


def run(loop: Loop, scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StubProcess]]:
    class Context:
        Process = StubProcess

    monkeypatch.setattr(transport.multiprocessing, "get_context", lambda _: Context)
    monkeypatch.setattr(watchdog, "MIN_DELAY", 0.001)
    StubProcess.reset()
    yield StubProcess
    StubProcess.reset()


@LOOPS
def test_a_process_that_is_killed_under_load(loop: Loop, stub: type[StubProcess]) -> None:
    async def scenario() -> None:
        handle = EngineClient(ProcessTransport(Plan(), ring_samples=2**18))
        await endure(handle, lambda: stub.last.kill())
        await handle.stop()

    run(loop, scenario)


@LOOPS
def test_a_shared_engine_is_killed_under_load(loop: Loop, tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = StubListener(str(tmp_path / "engine"))
        handle = EngineClient(SocketTransport(tmp_path / "engine", 3, 2**18), 3)
        await endure(handle, engine.kill)
        await handle.stop()
        engine.close()

    run(loop, scenario)


def test_an_engine_that_dies_in_its_first_start_raises(stub: type[StubProcess]) -> None:
    stub.dies_at_start = range(1, 2)
    with pytest.raises(EngineFailed, match=r"the engine died \(killed by SIGKILL\) while it started"):
        asyncio.run(EngineClient(ProcessTransport(Plan())).start())


def test_restarts_that_fail_are_followed_by_one_that_succeeds(stub: type[StubProcess]) -> None:
    stub.dies_at_start = range(2, 1 + MAX_STARTS)

    async def scenario() -> None:
        handle = EngineClient(ProcessTransport(Plan()))
        await handle.start()
        stream = MarkerStream(handle)
        stub.last.kill()
        stream.request_marker()
        await until(lambda: stream.is_done)
        assert stream.received == [0]
        assert handle.restarts == MAX_STARTS
        await handle.stop()

    asyncio.run(scenario())


def test_repeated_failed_restarts_end_the_client(stub: type[StubProcess]) -> None:
    stub.dies_at_start = range(2, 1000)

    async def scenario() -> None:
        handle = EngineClient(ProcessTransport(Plan()))
        await handle.start()
        stream = MarkerStream(handle)
        stub.last.kill()
        async with asyncio.timeout(PATIENCE):
            error = await handle.wait_for_failure()
        assert "none of the last 5 engines said a word" in error.message
        assert stream.error is error
        assert not handle.is_ready
        await handle.stop()
        assert stub.started == 1 + MAX_STARTS

    asyncio.run(scenario())


@pytest.mark.parametrize("first", [1, 2], ids=["the first", "the one after a crash"])
def test_an_engine_that_hangs_in_its_start_is_restarted(
    first: int, stub: type[StubProcess], caplog: pytest.LogCaptureFixture
) -> None:
    stub.hangs_at_start = range(first, first + 2)

    async def scenario() -> None:
        handle = EngineClient(ProcessTransport(Plan(), start_seconds=SHORT))
        await handle.start()
        stream = MarkerStream(handle)
        if first == 2:
            stub.last.kill()
        stream.request_marker()
        await until(lambda: stream.is_done)
        assert handle.restarts == first + 1
        assert handle.is_ready
        await handle.stop()

    asyncio.run(scenario())
    hung = f"did not get on for {SHORT:g} s (start_seconds) while it was opening a model; it was killed"
    assert caplog.text.count(f"{hung}; starting it again") == 2


def test_repeated_hanging_starts_end_the_client(stub: type[StubProcess]) -> None:
    stub.hangs_at_start = range(1, 1000)
    with pytest.raises(EngineFailed, match=r"none of the last 5 engines said a word; .* while it was opening a model"):
        asyncio.run(EngineClient(ProcessTransport(Plan(), start_seconds=SHORT)).start())
    assert stub.started == MAX_STARTS


def test_a_start_that_makes_progress_is_not_limited(stub: type[StubProcess]) -> None:
    """All steps together take longer than the limit of one."""
    stub.steps = (0.8,) * 4

    async def scenario() -> None:
        handle = EngineClient(ProcessTransport(Plan(), start_seconds=2.0))
        await handle.start()
        assert handle.restarts == 0
        await handle.stop()

    asyncio.run(scenario())


def test_a_cancelled_start_ends(stub: type[StubProcess]) -> None:
    stub.hangs_at_start = range(1, 1000)

    async def scenario() -> None:
        handle = EngineClient(ProcessTransport(Plan()))
        starting = asyncio.create_task(handle.start())
        await until(lambda: stub.started == 1)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert len(asyncio.all_tasks()) == 1
        stub.last.kill()
        await handle.stop()

    asyncio.run(scenario())


def test_silent_engines_are_killed(stub: type[StubProcess], monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts requests, and is not ready."""
    stub.silent = range(2, 1000)

    async def scenario() -> None:
        handle = EngineClient(ProcessTransport(Plan()))
        await handle.start()
        stub.last.kill()
        await until(lambda: not handle.is_ready)
        monkeypatch.setattr(handles, "PING_INTERVAL", 0.002)
        failing = asyncio.ensure_future(handle.wait_for_failure())
        async with asyncio.timeout(PATIENCE):
            while not failing.done():
                assert not handle.is_ready
                await asyncio.sleep(TICK)
        assert stub.started == 1 + MAX_STARTS
        await handle.stop()

    asyncio.run(scenario())


@LOOPS
def test_a_suspension_of_this_process_is_noted(
    loop: Loop, stub: type[StubProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No stream lags because of it, from the first event on."""
    monkeypatch.setattr("conure.event_loop.MIN_STALL", 0.1)
    monkeypatch.setattr(handles, "SUSPEND_CHECK_INTERVAL", 0.01)
    backs = []

    class RestartedStream(MarkerStream):
        def on_event(self, answer: StreamEvent) -> None:
            super().on_event(answer)
            backs.append(self._handle.resumed_at)

    async def scenario() -> None:
        handle = EngineClient(ProcessTransport(Plan()))
        await handle.start()
        await asyncio.sleep(5 * handles.SUSPEND_CHECK_INTERVAL)
        stream = RestartedStream(handle)
        stream.request_marker()
        await until(lambda: stream.is_done)
        backs.clear()
        stream.request_marker()
        await asyncio.sleep(0)  # it is sent
        began = time.monotonic()
        time.sleep(1.0)
        await until(lambda: stream.is_done)
        await handle.stop()
        assert min(backs) > began
        assert handle.restarts == 0

    run(loop, scenario)


def test_a_delayed_engine_is_responsive_with_its_next_message(stub: type[StubProcess]) -> None:
    async def scenario() -> None:
        handle = EngineClient(ProcessTransport(Plan()))
        await handle.start()
        began = handle.resumed_at
        for _ in range(watchdog.MAX_LATE):
            handle._watchdog.ping_missed()
        assert not handle.is_ready
        stream = MarkerStream(handle)
        stream.request_marker()
        await until(lambda: stream.is_done)
        assert handle.is_ready
        assert handle.resumed_at > began
        assert handle.restarts == 0
        await handle.stop()

    asyncio.run(scenario())


def test_a_receiver_that_raises_ends_alone(stub: type[StubProcess]) -> None:
    class Broken(MarkerStream):
        def on_event(self, answer: StreamEvent) -> None:
            raise ZeroDivisionError("a mistake of ours")

    async def scenario() -> None:
        handle = EngineClient(ProcessTransport(Plan()))
        await handle.start()
        broken, sound = Broken(handle), MarkerStream(handle)
        for stream in (broken, sound):
            stream.request_marker()
        await until(lambda: sound.is_done and broken.error is not None)
        assert isinstance(broken.error, EngineFailed)
        assert "a mistake of ours" in broken.error.message
        assert handle.receiver_count == 1
        await handle.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["send", "receive"])
def test_a_failed_task_ends_the_client(method: str, stub: type[StubProcess], monkeypatch: pytest.MonkeyPatch) -> None:
    name = {"send": "sending requests to the engine", "receive": "receiving the engine's answers"}[method]
    before = counted(name)

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    async def scenario() -> None:
        carrier = ProcessTransport(Plan())
        handle = EngineClient(carrier)
        await handle.start()
        stream = MarkerStream(handle)
        monkeypatch.setattr(carrier, method, broken)
        stream.request_marker()
        async with asyncio.timeout(PATIENCE):
            error = await handle.wait_for_failure()
        assert f"{name} ended unexpectedly: ZeroDivisionError: a mistake of ours" in error.message
        assert stream.error is error
        assert not handle.is_ready
        await handle.stop()

    asyncio.run(scenario())
    assert counted(name) == before + 1


def counted(task: str) -> float:
    return metrics.REGISTRY.get_sample_value("conure_background_failures_total", {"task": task}) or 0.0
