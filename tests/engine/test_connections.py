"""Several processes ask one engine: each hears of its own streams alone, and whoever leaves frees what it had."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from conure.engine.client import EngineClient
from conure.engine.ipc import connections
from conure.engine.ipc.frames import frame, receive_frame
from conure.engine.ipc.sample_ring import SampleRing
from conure.engine.ipc.transport import ProcessTransport, SocketTransport
from conure.engine.ipc.wire import EngineMessage, answer_reader
from conure.engine.messages import (
    Audio,
    CapacityChanged,
    Failed,
    Finished,
    Open,
    StepTaken,
    StreamOpened,
    StreamOptions,
)
from conure.engine.plan import Plan
from conure.errors import EngineFailed
from conure.models.network import Network
from tests.engine.live_model import save_live_model
from tests.engine.test_client import PATIENCE, Listener, say
from tests.engine.test_stream_lane import net, noise, offline
from tests.waiting import until

__all__ = ["net"]

SLOTS = 4


@pytest.fixture(scope="module")
def model(net: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_live_model(net, tmp_path_factory.mktemp("models") / "small")


class House:
    """An engine, whoever started it, and two that ask it."""

    def __init__(self, path: Path, starter: EngineClient, transport: ProcessTransport) -> None:
        self.path = path
        self.starter = starter
        self.turns: list[StepTaken] = []
        starter.on_turn = self.turns.append
        self.askers: list[EngineClient] = []
        self._transport = transport

    async def asker(self, number: int) -> EngineClient:
        asker = EngineClient(SocketTransport(self.path, number, 2**20), number)
        await asker.start()
        self.askers.append(asker)
        return asker

    def kill_engine(self) -> None:
        assert self._transport.process_id
        os.kill(self._transport.process_id, signal.SIGKILL)


@asynccontextmanager
async def house(model: Path, folder: Path) -> AsyncIterator[House]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "engine"))
        listener.listen()
        transport = ProcessTransport(Plan(live=(str(model),), device="cpu", slots=SLOTS), listener)
        starter = EngineClient(transport)
        await starter.start()
        place = House(folder / "engine", starter, transport)
        try:
            yield place
        finally:
            for asker in place.askers:
                await asker.stop()
            await starter.stop()


def test_each_hears_of_its_own(net: Network, model: Path, tmp_path: Path) -> None:
    clips = [noise(np.random.default_rng(seed), 30_000) for seed in range(2)]

    async def talk() -> None:
        async with house(model, tmp_path) as place:
            listeners = []
            for number, clip in zip((1, 2), clips, strict=True):
                asker, listener = await place.asker(number), Listener()
                say(asker, asker.register(listener), clip)
                listeners.append(listener)
            for listener, clip in zip(listeners, clips, strict=True):
                await asyncio.wait_for(listener.ended.wait(), PATIENCE)
                assert isinstance(listener.answers[-1], Finished)
                assert listener.tokens() == [token for token, _ in offline(net, clip, 2)]
            assert place.turns

    asyncio.run(talk())


def test_whoever_started_it_may_stand_still() -> None:
    """What is counted of turns waits up to a bound, then is left out; it cuts nobody off."""
    theirs, ours = socket.socketpair()
    ring = SampleRing.create(16)
    with ours:
        connection = connections._Connection(connections.PARENT, theirs, SampleRing.attach(ring.name))
        turn, room = StepTaken("small", 160, 1, 0.01, 1, 0, {"encoder" * 50: 0.01}), CapacityChanged("small", (1,))
        for _ in range(5 * connections.MAX_QUEUED):
            connection.send([turn])
        connection.send([room])
        heard: list[EngineMessage] = []
        while heard[-1:] != [room]:
            payload = receive_frame(ours)
            assert payload is not None, "it was cut off"
            heard += answer_reader().decode(payload)
        assert turn in heard
        connection.close()
    ring.close()


def test_who_leaves_frees_its_slots(model: Path, tmp_path: Path) -> None:
    async def taken(asker: EngineClient, count: int) -> list[bool]:
        listeners = [Listener() for _ in range(count)]
        for listener in listeners:
            asker.ask(Open(asker.register(listener), StreamOptions("small", 1120), again=True))
        await until(lambda: all(listener.answers for listener in listeners))
        assert all(isinstance(listener.answers[0], StreamOpened | Failed) for listener in listeners)
        return [isinstance(listener.answers[0], StreamOpened) for listener in listeners]

    async def talk() -> None:
        async with house(model, tmp_path) as place:
            first, second = await place.asker(1), await place.asker(2)
            assert await taken(first, SLOTS) == [True] * SLOTS
            assert await taken(second, 1) == [False]
            await first.stop()
            while await taken(second, 1) == [False]:
                pass  # it has not been noticed yet
            again = await place.asker(1)
            assert await taken(again, SLOTS) == [True] * (SLOTS - 1) + [False]

    asyncio.run(talk())


def test_all_go_on_with_the_next_engine(net: Network, model: Path, tmp_path: Path) -> None:
    samples = noise(np.random.default_rng(5), 30_000)

    async def talk() -> None:
        async with house(model, tmp_path) as place:
            askers = [await place.asker(number) for number in (1, 2)]
            listeners = [Listener(), Listener()]
            numbers = [asker.register(listener) for asker, listener in zip(askers, listeners, strict=True)]
            for asker, number in zip(askers, numbers, strict=True):
                asker.ask(Open(number, StreamOptions("small")))
                asker.ask(Audio(number, samples[:20_000]))
            await asyncio.sleep(0.2)
            place.kill_engine()
            for asker, number, listener in zip(askers, numbers, listeners, strict=True):
                await asyncio.wait_for(listener.restarts.wait(), PATIENCE)
                listener.answers.clear()
                say(asker, number, samples)
                await asyncio.wait_for(listener.ended.wait(), PATIENCE)
                assert listener.tokens() == [token for token, _ in offline(net, samples, 2)]
            assert [asker.restarts for asker in (*askers, place.starter)] == [1, 1, 1]

    asyncio.run(talk())


def test_who_does_not_read_holds_nobody_up(net: Network, model: Path, tmp_path: Path) -> None:
    """Its pings are answered into a socket that fills."""
    samples = noise(np.random.default_rng(6), 30_000)

    async def talk() -> None:
        async with house(model, tmp_path) as place:
            deaf, asker, listener = await place.asker(1), await place.asker(2), Listener()
            deaf._tasks[0].cancel()
            for _ in range(200):
                for _ in range(50):
                    deaf.ask(Open(deaf.register(Listener()), StreamOptions("x" * 2000)))
                await asyncio.sleep(0.005)
            say(asker, asker.register(listener), samples)
            await asyncio.wait_for(listener.ended.wait(), PATIENCE)
            assert listener.tokens() == [token for token, _ in offline(net, samples, 2)]

    asyncio.run(talk())


def test_without_an_engine_it_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="there is no engine"):
        asyncio.run(EngineClient(SocketTransport(tmp_path / "none", 1), 1).start())


def test_who_hangs_up_before_it_was_introduced(net: Network, model: Path, tmp_path: Path) -> None:
    async def talk() -> None:
        async with house(model, tmp_path) as place:
            for said in (b"", b"\0\0", frame(b"nonsense")):
                with socket.socket(socket.AF_UNIX) as end:
                    end.connect(str(place.path))
                    end.sendall(said)
            listener, asker = Listener(), await place.asker(1)
            say(asker, asker.register(listener), noise(np.random.default_rng(7), 20_000))
            await asyncio.wait_for(listener.ended.wait(), PATIENCE)
            assert isinstance(listener.answers[-1], Finished)

    asyncio.run(talk())
