"""Runs all protocols in this process, on real sockets, with a fake engine that tests control."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import numpy as np
import pytest

from conure.engine import messages as engine
from conure.engine.client import EngineClient
from conure.engine.messages import Request, StreamEvent
from conure.engine.plan import Plan
from conure.event_loop import new_event_loop
from conure.server import ProtocolServers, open_servers
from conure.service.tokenizer_cache import TokenizerCache
from conure.settings import Settings
from tests.service.fake_engine import TOKENIZER, Engine

__all__ = ["PausedEngine", "RunningServers", "run_servers"]

PATIENCE = 120.0
RATE = 16_000


class PausedEngine(Engine):
    """Answers only `Open` while it is paused; afterwards answers every request immediately."""

    def __init__(self) -> None:
        super().__init__()
        self.is_paused = True
        self.sample_counts: dict[int, int] = defaultdict(int)
        """Samples received, by stream."""
        self.max_ahead = 0
        """Most samples of one stream received while paused."""

    def send(self, request: Request) -> None:
        super().send(request)
        if not self.is_paused and not isinstance(request, engine.Open):
            asyncio.get_running_loop().call_soon(self.say, *self._answers(request))

    def resume(self) -> None:
        for stream in self.receivers:
            packets = [request.samples for request in self.asked if _is_audio_of(request, stream)]
            self.max_ahead = max(self.max_ahead, sum(map(len, packets)))
        self.is_paused = False
        for request in list(self.asked):
            if not isinstance(request, engine.Open):
                self.say(*self._answers(request))

    def samples_of(self, stream: int) -> np.ndarray:
        packets = [request.samples for request in self.asked if _is_audio_of(request, stream)]
        return np.concatenate([np.empty(0, np.float32), *packets])

    def _answers(self, request: Request) -> Iterator[StreamEvent]:
        match request:
            case engine.Audio(stream, samples):
                self.sample_counts[stream] += len(samples)
                yield engine.StreamTokens(stream, (), self.sample_counts[stream] / RATE)
            case engine.Finalize(stream, marker):
                yield engine.Marker(stream, marker)
            case engine.Close(stream):
                yield engine.Finished(stream)


def _is_audio_of(request: Request, stream: int) -> bool:
    return isinstance(request, engine.Audio) and request.stream == stream


class RunningServers:
    def __init__(self, engine: PausedEngine, servers: ProtocolServers) -> None:
        self.engine = engine
        self.servers = servers
        self.ports = servers.ports

    def url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.ports.web}{path}"


@asynccontextmanager
async def _open_servers(**settings: Any) -> AsyncIterator[RunningServers]:
    paused = PausedEngine()
    ports = dict.fromkeys(("port", "tcp_port", "grpc_port", "wyoming_port"), "free")
    chosen = Settings(status_port=0, **(ports | settings))
    async with open_servers(chosen, cast(EngineClient, paused), Plan(("live",), ("clips",))) as servers:
        yield RunningServers(paused, servers)


def run_servers(scenario: Callable[[RunningServers], Awaitable[None]], **settings: Any) -> PausedEngine:
    """Runs the scenario and checks that no stream, byte or task is left."""

    async def run() -> PausedEngine:
        async with _open_servers(**settings) as running:
            async with asyncio.timeout(PATIENCE):
                await scenario(running)
                while (
                    len(running.servers.live) or running.engine.receivers or running.servers.live.spool_space.used_bytes
                ):
                    await asyncio.sleep(0.01)
                while any(task.get_name() == "inbox" for task in asyncio.all_tasks()):
                    await asyncio.sleep(0.01)
            return running.engine

    with _test_tokenizer(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(run())


@contextmanager
def _test_tokenizer() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenizerCache, "of", lambda self, card: TOKENIZER)
        yield
