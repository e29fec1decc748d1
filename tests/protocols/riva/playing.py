"""The Riva door before an engine that says what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc
import pytest

from conure.engine import messages as engine
from conure.engine.client import EngineClient
from conure.errors import Unauthorized
from conure.event_loop import new_event_loop
from conure.protocols.http.connection_limits import Capacity, ConnectionLimits
from conure.protocols.http.uploads import Uploads
from conure.protocols.riva.riva_asr_pb2 import (
    RecognitionConfig,
    StreamingRecognizeRequest,
)
from conure.protocols.riva.server import serve_riva
from conure.protocols.services import Services
from conure.service.access import ANONYMOUS, Access, Caller, Scope, Usage
from conure.service.file_service import FileService
from conure.service.live_service import LiveService
from conure.service.model_directory import ModelDirectory
from conure.service.status import ProcessStatus
from conure.service.tokenizer_cache import TokenizerCache
from tests.protocols.riva.calling import Riva, audio, configured
from tests.service.fake_engine import TOKENIZER, Engine, tokens
from tests.waiting import PATIENCE, until

__all__ = ["CONFIG", "INVALID", "KEYED", "SECOND", "Locked", "Place", "at", "ended", "refusal", "until"]

CONFIG = RecognitionConfig(sample_rate_hertz=16_000)
SECOND = audio(bytes(32_000))
KEY = "sesame"


class Locked:
    """Lets in whoever has the key; the caller may do nothing more."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def identify(self, secret: str | None) -> Caller:
        if secret != KEY:
            raise Unauthorized("a key is needed", "send authorization: Bearer KEY")
        return _Held(self._error)


class _Held:
    name = "held"

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def begin_usage(self, scope: Scope) -> Usage:
        if self._error:
            raise self._error
        return await ANONYMOUS.begin_usage(scope)


CHANNEL = [("grpc.http2.bdp_probe", 0)]
"""Else a client that reads nothing is sent more and more ahead."""


class Place:
    def __init__(self, access: Access | None = None, room: Capacity | None = None) -> None:
        self.engine = Engine()
        handle = cast(EngineClient, self.engine)
        tokenizers = TokenizerCache()
        tokenizers._read = dict.fromkeys(self.engine.models, TOKENIZER)
        self.live = LiveService(handle, ModelDirectory(handle, ["live"], ["clips"]), tokenizers)
        files = FileService(handle, tokenizers)
        uploads, connections = Uploads(2**20, 8), ConnectionLimits(room)
        self.behind = Services(self.live, files, ProcessStatus(self.live), access or Locked(), uploads, connections)
        self.channel: Any = None
        self.riva: Riva = cast(Riva, None)
        self.port = 0

    async def opened(self, *requests: StreamingRecognizeRequest) -> Any:
        """A stream that has said so much, and has audio in the engine."""
        call = self.riva.stream(metadata=(("authorization", f"Bearer {KEY}"),))
        for request in (configured(CONFIG), *(requests or (SECOND,))):
            await call.write(request)
        await until(lambda: self.engine.of(engine.Audio))
        return call

    def another(self) -> Any:
        """A channel with a connection of its own."""
        own = ("grpc.use_local_subchannel_pool", 1)
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", [*CHANNEL, own])

    @property
    def number(self) -> int:
        return max(self.engine.receivers)

    def hear(self, letters: str, at: float) -> None:
        self.engine.say(engine.StreamTokens(self.number, tokens(letters, at), at + 0.5))


def at(
    play: Callable[[Place], Awaitable[None]], access: Access | None = None, room: Capacity | None = None, **options: Any
) -> Place:
    async def run() -> Place:
        place = Place(access, room)
        server = await serve_riva(place.behind, "127.0.0.1", 0, **options)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", CHANNEL) as channel:
                place.channel, place.riva, place.port = channel, Riva(channel), server.port
                await asyncio.wait_for(play(place), PATIENCE)
            await until(lambda: not len(place.live) and not place.engine.receivers)
        finally:
            await server.close()
        return place

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(run())


async def ended(call: Any) -> None:
    if hasattr(call, "read"):
        while await call.read() is not grpc.aio.EOF:
            pass
    else:
        await call


async def refusal(call: Any, code: grpc.StatusCode, *parts: str) -> dict[str, str]:
    """Its trailing metadata, after what came before was read."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ended(call)
    assert raised.value.code() is code, raised.value
    for part in parts:
        assert part in (raised.value.details() or "")
    return dict(raised.value.trailing_metadata() or ())


KEYED = {"metadata": (("authorization", f"Bearer {KEY}"),)}
INVALID = grpc.StatusCode.INVALID_ARGUMENT
