"""All doors of a server in this process, at real sockets, before an engine that says what a test wants."""

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
from conure.engine.messages import Answer, Request
from conure.engine.plan import Plan
from conure.event_loop import new_event_loop
from conure.server import ProtocolServers, open_servers
from conure.service.tokenizer_cache import TokenizerCache
from conure.settings import Settings
from tests.service.fake_engine import TOKENIZER, Engine

__all__ = ["Holding", "Standing", "standing"]

PATIENCE = 120.0
RATE = 16_000


class Holding(Engine):
    """Answers nothing but `Open` until it is let go on; then it works in all that comes, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.is_held = True
        self.heard: dict[int, int] = defaultdict(int)
        """Samples by stream."""
        self.most_ahead = 0
        """Samples that it was given of one stream, at most, while it was held."""

    def ask(self, request: Request) -> None:
        super().ask(request)
        if not self.is_held and not isinstance(request, engine.Open):
            asyncio.get_running_loop().call_soon(self.say, *self._answers(request))

    def let_go(self) -> None:
        for stream in self.receivers:
            given = [request.samples for request in self.asked if _is_audio_of(request, stream)]
            self.most_ahead = max(self.most_ahead, sum(map(len, given)))
        self.is_held = False
        for request in list(self.asked):
            if not isinstance(request, engine.Open):
                self.say(*self._answers(request))

    def samples_of(self, stream: int) -> np.ndarray:
        given = [request.samples for request in self.asked if _is_audio_of(request, stream)]
        return np.concatenate([np.empty(0, np.float32), *given])

    def _answers(self, request: Request) -> Iterator[Answer]:
        match request:
            case engine.Audio(stream, samples):
                self.heard[stream] += len(samples)
                yield engine.StreamTokens(stream, (), self.heard[stream] / RATE)
            case engine.Finalize(stream, marker):
                yield engine.Marker(stream, marker)
            case engine.Close(stream):
                yield engine.Finished(stream)


def _is_audio_of(request: Request, stream: int) -> bool:
    return isinstance(request, engine.Audio) and request.stream == stream


class Standing:
    def __init__(self, engine: Holding, doors: ProtocolServers) -> None:
        self.engine = engine
        self.doors = doors
        self.ports = doors.ports

    def url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.ports.web}{path}"


@asynccontextmanager
async def _standing(**settings: Any) -> AsyncIterator[Standing]:
    held = Holding()
    ports = dict.fromkeys(("port", "tcp_port", "grpc_port", "wyoming_port"), "free")
    chosen = Settings(status_port=0, **(ports | settings))
    async with open_servers(chosen, cast(EngineClient, held), Plan(("live",), ("clips",))) as doors:
        yield Standing(held, doors)


def standing(play: Callable[[Standing], Awaitable[None]], **settings: Any) -> Holding:
    """Plays, and sees that no stream, byte or task is left."""

    async def run() -> Holding:
        async with _standing(**settings) as place:
            async with asyncio.timeout(PATIENCE):
                await play(place)
                while len(place.doors.live) or place.engine.receivers or place.doors.live.spool_space.used_bytes:
                    await asyncio.sleep(0.01)
                while any(task.get_name() == "inbox" for task in asyncio.all_tasks()):
                    await asyncio.sleep(0.01)
            return place.engine

    with _known_tokenizer(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(run())


@contextmanager
def _known_tokenizer() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenizerCache, "of", lambda self, card: TOKENIZER)
        yield
