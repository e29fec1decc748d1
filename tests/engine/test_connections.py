"""Several clients of one engine: each receives its own streams' events, and frees its slots when it disconnects."""

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
from conure.engine.ipc.frames import encode_frame, receive_frame
from conure.engine.ipc.sample_ring import SampleRing
from conure.engine.ipc.transport import ProcessTransport, SocketTransport
from conure.engine.ipc.wire import EngineMessage, message_decoder
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
from tests.engine.test_client import PATIENCE, Listener, send_clip
from tests.engine.test_stream_lane import net, noise, offline
from tests.waiting import until

__all__ = ["net"]

SLOTS = 4


@pytest.fixture(scope="module")
def model(net: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_live_model(net, tmp_path_factory.mktemp("models") / "small")


class SharedEngine:
    """An engine, its parent and other clients."""

    def __init__(self, path: Path, parent: EngineClient, transport: ProcessTransport) -> None:
        self.path = path
        self.parent = parent
        self.steps: list[StepTaken] = []
        parent.on_step = self.steps.append
        self.clients: list[EngineClient] = []
        self._transport = transport

    async def connect(self, number: int) -> EngineClient:
        client = EngineClient(SocketTransport(self.path, number, 2**20), number)
        await client.start()
        self.clients.append(client)
        return client

    def kill_engine(self) -> None:
        assert self._transport.process_id
        os.kill(self._transport.process_id, signal.SIGKILL)


@asynccontextmanager
async def shared_engine(model: Path, folder: Path) -> AsyncIterator[SharedEngine]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "engine"))
        listener.listen()
        transport = ProcessTransport(Plan(live_models=(str(model),), device="cpu", max_streams=SLOTS), listener)
        parent = EngineClient(transport)
        await parent.start()
        shared = SharedEngine(folder / "engine", parent, transport)
        try:
            yield shared
        finally:
            for client in shared.clients:
                await client.stop()
            await parent.stop()


def test_each_connection_receives_its_own_streams(net: Network, model: Path, tmp_path: Path) -> None:
    clips = [noise(np.random.default_rng(seed), 30_000) for seed in range(2)]

    async def scenario() -> None:
        async with shared_engine(model, tmp_path) as shared:
            listeners = []
            for number, clip in zip((1, 2), clips, strict=True):
                client, listener = await shared.connect(number), Listener()
                send_clip(client, client.register(listener), clip)
                listeners.append(listener)
            for listener, clip in zip(listeners, clips, strict=True):
                await asyncio.wait_for(listener.ended.wait(), PATIENCE)
                assert isinstance(listener.answers[-1], Finished)
                assert listener.tokens() == [token for token, _ in offline(net, clip, 2)]
            assert shared.steps

    asyncio.run(scenario())


def test_a_stalled_parent_is_not_disconnected() -> None:
    """Step statistics are dropped beyond a bound, without a disconnect."""
    theirs, ours = socket.socketpair()
    ring = SampleRing.create(16)
    with ours:
        connection = connections._Connection(connections.PARENT, theirs, SampleRing.attach(ring.name))
        step, change = StepTaken("small", 160, 1, 0.01, 1, 0, {"encoder" * 50: 0.01}), CapacityChanged("small", (1,))
        for _ in range(5 * connections.MAX_QUEUED):
            connection.send([step])
        connection.send([change])
        received: list[EngineMessage] = []
        while received[-1:] != [change]:
            payload = receive_frame(ours)
            assert payload is not None, "disconnected"
            received += message_decoder().decode(payload)
        assert step in received
        connection.close()
    ring.close()


def test_a_disconnected_client_frees_its_slots(model: Path, tmp_path: Path) -> None:
    async def try_open(client: EngineClient, count: int) -> list[bool]:
        listeners = [Listener() for _ in range(count)]
        for listener in listeners:
            client.send(Open(client.register(listener), StreamOptions("small", 1120), is_replay=True))
        await until(lambda: all(listener.answers for listener in listeners))
        assert all(isinstance(listener.answers[0], StreamOpened | Failed) for listener in listeners)
        return [isinstance(listener.answers[0], StreamOpened) for listener in listeners]

    async def scenario() -> None:
        async with shared_engine(model, tmp_path) as shared:
            first, second = await shared.connect(1), await shared.connect(2)
            assert await try_open(first, SLOTS) == [True] * SLOTS
            assert await try_open(second, 1) == [False]
            await first.stop()
            while await try_open(second, 1) == [False]:
                pass  # it has not been noticed yet
            reconnected = await shared.connect(1)
            assert await try_open(reconnected, SLOTS) == [True] * (SLOTS - 1) + [False]

    asyncio.run(scenario())


def test_all_streams_continue_on_the_next_engine(net: Network, model: Path, tmp_path: Path) -> None:
    samples = noise(np.random.default_rng(5), 30_000)

    async def scenario() -> None:
        async with shared_engine(model, tmp_path) as shared:
            clients = [await shared.connect(number) for number in (1, 2)]
            listeners = [Listener(), Listener()]
            numbers = [client.register(listener) for client, listener in zip(clients, listeners, strict=True)]
            for client, number in zip(clients, numbers, strict=True):
                client.send(Open(number, StreamOptions("small")))
                client.send(Audio(number, samples[:20_000]))
            await asyncio.sleep(0.2)
            shared.kill_engine()
            for client, number, listener in zip(clients, numbers, listeners, strict=True):
                await asyncio.wait_for(listener.restarts.wait(), PATIENCE)
                listener.answers.clear()
                send_clip(client, number, samples)
                await asyncio.wait_for(listener.ended.wait(), PATIENCE)
                assert listener.tokens() == [token for token, _ in offline(net, samples, 2)]
            assert [client.restarts for client in (*clients, shared.parent)] == [1, 1, 1]

    asyncio.run(scenario())


def test_a_client_that_does_not_read_delays_no_other(net: Network, model: Path, tmp_path: Path) -> None:
    """The pongs for it fill its socket."""
    samples = noise(np.random.default_rng(6), 30_000)

    async def scenario() -> None:
        async with shared_engine(model, tmp_path) as shared:
            stalled, client, listener = await shared.connect(1), await shared.connect(2), Listener()
            stalled._tasks[0].cancel()
            for _ in range(200):
                for _ in range(50):
                    stalled.send(Open(stalled.register(Listener()), StreamOptions("x" * 2000)))
                await asyncio.sleep(0.005)
            send_clip(client, client.register(listener), samples)
            await asyncio.wait_for(listener.ended.wait(), PATIENCE)
            assert listener.tokens() == [token for token, _ in offline(net, samples, 2)]

    asyncio.run(scenario())


def test_connecting_without_an_engine_fails(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="the engine is not running"):
        asyncio.run(EngineClient(SocketTransport(tmp_path / "none", 1), 1).start())


def test_a_connection_that_closes_before_its_handshake(net: Network, model: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shared_engine(model, tmp_path) as shared:
            for payload in (b"", b"\0\0", encode_frame(b"nonsense")):
                with socket.socket(socket.AF_UNIX) as end:
                    end.connect(str(shared.path))
                    end.sendall(payload)
            listener, client = Listener(), await shared.connect(1)
            send_clip(client, client.register(listener), noise(np.random.default_rng(7), 20_000))
            await asyncio.wait_for(listener.ended.wait(), PATIENCE)
            assert isinstance(listener.answers[-1], Finished)

    asyncio.run(scenario())
