"""The gRPC server with a scripted engine in its process."""

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

__all__ = [
    "CONFIG",
    "INVALID_ARGUMENT",
    "WITH_KEY",
    "ONE_SECOND",
    "LockedAccess",
    "ScriptedServer",
    "run_scenario",
    "wait_for_end",
    "expect_error",
    "until",
]

CONFIG = RecognitionConfig(sample_rate_hertz=16_000)
ONE_SECOND = audio(bytes(32_000))
KEY = "sesame"


class LockedAccess:
    """Accepts one key; its caller gets `error` for every use."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def identify(self, secret: str | None) -> Caller:
        if secret != KEY:
            raise Unauthorized("a key is needed", "send authorization: Bearer KEY")
        return _LimitedCaller(self._error)


class _LimitedCaller:
    name = "held"

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def begin_usage(self, scope: Scope) -> Usage:
        if self._error:
            raise self._error
        return await ANONYMOUS.begin_usage(scope)


CHANNEL = [("grpc.http2.bdp_probe", 0)]
"""Without bandwidth probing, which would enlarge the window of a client that reads nothing."""


class ScriptedServer:
    """The server, its fake engine, and a client."""

    def __init__(self, access: Access | None = None, capacity: Capacity | None = None) -> None:
        self.engine = Engine()
        client = cast(EngineClient, self.engine)
        tokenizers = TokenizerCache()
        tokenizers._read = dict.fromkeys(self.engine.models_by_name, TOKENIZER)
        self.live = LiveService(client, ModelDirectory(client, ["live"], ["clips"]), tokenizers)
        files = FileService(client, tokenizers)
        uploads, connections = Uploads(2**20, 8), ConnectionLimits(capacity)
        self.services = Services(
            self.live, files, ProcessStatus(self.live), access or LockedAccess(), uploads, connections
        )
        self.channel: Any = None
        self.riva: Riva = cast(Riva, None)
        self.port = 0

    async def open_stream(self, *requests: StreamingRecognizeRequest) -> Any:
        """Opens a stream with these requests and waits until its audio is in the engine."""
        call = self.riva.stream(metadata=(("authorization", f"Bearer {KEY}"),))
        for request in (configured(CONFIG), *(requests or (ONE_SECOND,))):
            await call.write(request)
        await until(lambda: self.engine.of(engine.Audio))
        return call

    def new_channel(self) -> Any:
        """Returns a channel with its own connection."""
        local_pool = ("grpc.use_local_subchannel_pool", 1)
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", [*CHANNEL, local_pool])

    @property
    def number(self) -> int:
        return max(self.engine.receivers)

    def emit_tokens(self, letters: str, at: float) -> None:
        self.engine.say(engine.StreamTokens(self.number, tokens(letters, at), at + 0.5))


def run_scenario(
    scenario: Callable[[ScriptedServer], Awaitable[None]],
    access: Access | None = None,
    capacity: Capacity | None = None,
    **options: Any,
) -> ScriptedServer:
    async def run() -> ScriptedServer:
        server = ScriptedServer(access, capacity)
        riva_server = await serve_riva(server.services, "127.0.0.1", 0, **options)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{riva_server.port}", CHANNEL) as channel:
                server.channel, server.riva, server.port = channel, Riva(channel), riva_server.port
                await asyncio.wait_for(scenario(server), PATIENCE)
            await until(lambda: not len(server.live) and not server.engine.receivers)
        finally:
            await riva_server.close()
        return server

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(run())


async def wait_for_end(call: Any) -> None:
    if hasattr(call, "read"):
        while await call.read() is not grpc.aio.EOF:
            pass
    else:
        await call


async def expect_error(call: Any, code: grpc.StatusCode, *parts: str) -> dict[str, str]:
    """Reads to the error and returns its trailing metadata."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await wait_for_end(call)
    assert raised.value.code() is code, raised.value
    for part in parts:
        assert part in (raised.value.details() or "")
    return dict(raised.value.trailing_metadata() or ())


WITH_KEY = {"metadata": (("authorization", f"Bearer {KEY}"),)}
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
