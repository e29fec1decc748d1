"""An engine that dies again and again under steady load: everything that was asked is answered, once, in order."""

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
from conure.engine.messages import Answer, Audio, Finalize, Marker, Open, StreamOptions
from conure.engine.plan import Plan
from conure.engine.watchdog import MOST_STARTS
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


class Asking:
    """A stream that asks for one marker after the other, and asks again for those that a dead engine has not given."""

    def __init__(self, handle: EngineClient) -> None:
        self.heard: list[int] = []
        self.asked = 0
        self.error: ConureError | None = None
        self._handle = handle
        self._waiting: deque[int] = deque()
        self._number = handle.register(self)
        self._open()

    @property
    def is_done(self) -> bool:
        return not self._waiting

    def ask(self) -> None:
        self._waiting.append(self.asked)
        self._say(self.asked)
        self.asked += 1

    def answered(self, answer: Answer) -> None:
        if isinstance(answer, Marker):
            self.heard.append(answer.marker)
            assert answer.marker == self._waiting.popleft()

    def restarted(self) -> None:
        self._open()
        for marker in self._waiting:
            self._say(marker)

    def lost(self, error: ConureError) -> None:
        self.error = error

    def _open(self) -> None:
        self._handle.ask(Open(self._number, StreamOptions("stub")))

    def _say(self, marker: int) -> None:
        self._handle.ask(Audio(self._number, SAMPLES))
        self._handle.ask(Finalize(self._number, marker))


async def until(come_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not come_true():
            await asyncio.sleep(TICK)


async def endure(handle: EngineClient, kill: Callable[[], None]) -> None:
    """Steady load while the engine is killed so many times; then all must have been answered."""
    await handle.start()
    streams = [Asking(handle) for _ in range(STREAMS)]
    turn = itertools.cycle(streams)
    loop = asyncio.get_running_loop()
    for kills in range(1, KILLS + 1):
        heard, over = sum(len(stream.heard) for stream in streams), loop.time() + BETWEEN
        while loop.time() < over or sum(len(stream.heard) for stream in streams) == heard:
            for _ in range(AT_ONCE):
                next(turn).ask()
            await asyncio.sleep(TICK)
            assert not any(stream.error for stream in streams)
        kill()
        await until(lambda kills=kills: handle.restarts >= kills)  # type: ignore[misc]
    for stream in streams:
        stream.ask()
    await until(lambda: all(stream.is_done for stream in streams))
    assert [stream.heard for stream in streams] == [list(range(stream.asked)) for stream in streams]
    assert handle.restarts == KILLS
    assert handle.is_ready


def run(loop: Loop, work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StubProcess]]:
    class Context:
        Process = StubProcess

    monkeypatch.setattr(transport.multiprocessing, "get_context", lambda _: Context)
    monkeypatch.setattr(watchdog, "SHORTEST", 0.001)
    StubProcess.reset()
    yield StubProcess
    StubProcess.reset()


@LOOPS
def test_a_process_that_is_killed_under_load(loop: Loop, stub: type[StubProcess]) -> None:
    async def work() -> None:
        handle = EngineClient(ProcessTransport(Plan(), ring_samples=2**18))
        await endure(handle, lambda: stub.last.kill())
        await handle.stop()

    run(loop, work)


@LOOPS
def test_an_engine_that_others_start_is_killed_under_load(loop: Loop, tmp_path: Path) -> None:
    async def work() -> None:
        engine = StubListener(str(tmp_path / "engine"))
        handle = EngineClient(SocketTransport(tmp_path / "engine", 3, 2**18), 3)
        await endure(handle, engine.kill)
        await handle.stop()
        engine.close()

    run(loop, work)


def test_one_that_dies_while_it_starts_at_first_is_told(stub: type[StubProcess]) -> None:
    stub.dies_at_start = range(1, 2)
    with pytest.raises(EngineFailed, match=r"the engine died \(killed by SIGKILL\) while it started"):
        asyncio.run(EngineClient(ProcessTransport(Plan())).start())


def test_some_that_die_while_they_start_again_are_followed_by_one_that_lives(stub: type[StubProcess]) -> None:
    stub.dies_at_start = range(2, 1 + MOST_STARTS)

    async def work() -> None:
        handle = EngineClient(ProcessTransport(Plan()))
        await handle.start()
        stream = Asking(handle)
        stub.last.kill()
        stream.ask()
        await until(lambda: stream.is_done)
        assert stream.heard == [0]
        assert handle.restarts == MOST_STARTS
        await handle.stop()

    asyncio.run(work())


def test_when_none_of_several_starts_it_is_the_end(stub: type[StubProcess]) -> None:
    stub.dies_at_start = range(2, 1000)

    async def work() -> None:
        handle = EngineClient(ProcessTransport(Plan()))
        await handle.start()
        stream = Asking(handle)
        stub.last.kill()
        async with asyncio.timeout(PATIENCE):
            error = await handle.until_failed()
        assert "none of the last 5 engines said a word" in error.message
        assert stream.error is error
        assert not handle.is_ready
        await handle.stop()
        assert stub.started == 1 + MOST_STARTS

    asyncio.run(work())


@pytest.mark.parametrize("first", [1, 2], ids=["the first", "the one after a crash"])
def test_one_that_hangs_while_it_starts_is_killed_and_followed(
    first: int, stub: type[StubProcess], caplog: pytest.LogCaptureFixture
) -> None:
    stub.hangs_at_start = range(first, first + 2)

    async def work() -> None:
        handle = EngineClient(ProcessTransport(Plan(), start_seconds=SHORT))
        await handle.start()
        stream = Asking(handle)
        if first == 2:
            stub.last.kill()
        stream.ask()
        await until(lambda: stream.is_done)
        assert handle.restarts == first + 1
        assert handle.is_ready
        await handle.stop()

    asyncio.run(work())
    hung = f"did not get on for {SHORT:g} s (start_seconds) while it was opening a model; it was killed"
    assert caplog.text.count(f"{hung}; starting it again") == 2


def test_when_all_hang_while_they_start_it_is_the_end(stub: type[StubProcess]) -> None:
    stub.hangs_at_start = range(1, 1000)
    with pytest.raises(EngineFailed, match=r"none of the last 5 engines said a word; .* while it was opening a model"):
        asyncio.run(EngineClient(ProcessTransport(Plan(), start_seconds=SHORT)).start())
    assert stub.started == MOST_STARTS


def test_one_that_gets_on_may_take_its_time(stub: type[StubProcess]) -> None:
    """All steps together take longer than one may."""
    stub.steps = (0.8,) * 4

    async def work() -> None:
        handle = EngineClient(ProcessTransport(Plan(), start_seconds=2.0))
        await handle.start()
        assert handle.restarts == 0
        await handle.stop()

    asyncio.run(work())


def test_a_start_is_over_where_nobody_waits_for_it(stub: type[StubProcess]) -> None:
    stub.hangs_at_start = range(1, 1000)

    async def work() -> None:
        handle = EngineClient(ProcessTransport(Plan()))
        starting = asyncio.create_task(handle.start())
        await until(lambda: stub.started == 1)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert len(asyncio.all_tasks()) == 1
        stub.last.kill()
        await handle.stop()

    asyncio.run(work())


def test_an_engine_that_says_nothing_is_killed_and_those_after_it(
    stub: type[StubProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes requests, and is ready to nobody."""
    stub.silent = range(2, 1000)

    async def work() -> None:
        handle = EngineClient(ProcessTransport(Plan()))
        await handle.start()
        stub.last.kill()
        await until(lambda: not handle.is_ready)
        monkeypatch.setattr(handles, "PING_EVERY", 0.002)
        failing = asyncio.ensure_future(handle.until_failed())
        async with asyncio.timeout(PATIENCE):
            while not failing.done():
                assert not handle.is_ready
                await asyncio.sleep(TICK)
        assert stub.started == 1 + MOST_STARTS
        await handle.stop()

    asyncio.run(work())


@LOOPS
def test_what_is_late_because_this_process_was_held_up(
    loop: Loop, stub: type[StubProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is held against no stream, from the first answer on."""
    monkeypatch.setattr("conure.event_loop.MIN_STALL", 0.1)
    monkeypatch.setattr(handles, "PULSE", 0.01)
    backs = []

    class Looking(Asking):
        def answered(self, answer: Answer) -> None:
            super().answered(answer)
            backs.append(self._handle.back_since)

    async def work() -> None:
        handle = EngineClient(ProcessTransport(Plan()))
        await handle.start()
        await asyncio.sleep(5 * handles.PULSE)
        stream = Looking(handle)
        stream.ask()
        await until(lambda: stream.is_done)
        backs.clear()
        stream.ask()
        await asyncio.sleep(0)  # it is sent
        began = time.monotonic()
        time.sleep(1.0)
        await until(lambda: stream.is_done)
        await handle.stop()
        assert min(backs) > began
        assert handle.restarts == 0

    run(loop, work)


def test_one_that_was_held_up_is_back_when_it_speaks(stub: type[StubProcess]) -> None:
    async def work() -> None:
        handle = EngineClient(ProcessTransport(Plan()))
        await handle.start()
        began = handle.back_since
        for _ in range(watchdog.LATE):
            handle._watchdog.look()
        assert not handle.is_ready
        stream = Asking(handle)
        stream.ask()
        await until(lambda: stream.is_done)
        assert handle.is_ready
        assert handle.back_since > began
        assert handle.restarts == 0
        await handle.stop()

    asyncio.run(work())


def test_a_stream_that_cannot_take_its_answers_ends_alone(stub: type[StubProcess]) -> None:
    class Broken(Asking):
        def answered(self, answer: Answer) -> None:
            raise ZeroDivisionError("a mistake of ours")

    async def work() -> None:
        handle = EngineClient(ProcessTransport(Plan()))
        await handle.start()
        broken, sound = Broken(handle), Asking(handle)
        for stream in (broken, sound):
            stream.ask()
        await until(lambda: sound.is_done and broken.error is not None)
        assert isinstance(broken.error, EngineFailed)
        assert "a mistake of ours" in broken.error.message
        assert handle.registered == 1
        await handle.stop()

    asyncio.run(work())


@pytest.mark.parametrize("method", ["send", "receive"])
def test_a_task_that_fails_is_the_end_by_name(
    method: str, stub: type[StubProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {"send": "sending requests to the engine", "receive": "receiving the engine's answers"}[method]
    before = counted(name)

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    async def work() -> None:
        carrier = ProcessTransport(Plan())
        handle = EngineClient(carrier)
        await handle.start()
        stream = Asking(handle)
        monkeypatch.setattr(carrier, method, broken)
        stream.ask()
        async with asyncio.timeout(PATIENCE):
            error = await handle.until_failed()
        assert f"{name} ended unexpectedly: ZeroDivisionError: a mistake of ours" in error.message
        assert stream.error is error
        assert not handle.is_ready
        await handle.stop()

    asyncio.run(work())
    assert counted(name) == before + 1


def counted(task: str) -> float:
    return metrics.REGISTRY.get_sample_value("conure_background_failures_total", {"task": task}) or 0.0
