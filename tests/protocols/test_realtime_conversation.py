"""A conversation before an engine that says what the test wants: refusals, failures, texts that change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from conure.engine import messages as engine
from conure.engine.client import EngineClient
from conure.errors import TooMany, Unauthorized
from conure.protocols.realtime.connection import ConnectionOver, Dialect, RealtimeConnection
from conure.protocols.realtime.items import Items
from conure.protocols.realtime.messages import ClientEvent, IdSource, Message
from conure.protocols.realtime.session import Session
from conure.service.access import ANONYMOUS, Caller, Scope, Usage
from conure.service.events import Final, Partial, SpeechStarted, UtteranceEnded
from conure.service.live_service import LiveService
from conure.service.model_directory import ModelDirectory
from conure.service.tokenizer_cache import TokenizerCache
from tests.protocols.realtime_clients import ASR
from tests.service.fake_engine import TOKENIZER, Engine, tokens
from tests.waiting import PATIENCE

SECOND = bytes(48_000)


class Removed:
    """A key that was removed after its owner had come in."""

    name = "browser"

    async def begin_usage(self, scope: Scope) -> Usage:
        raise Unauthorized("the key 'browser' was removed")


class Spent:
    """A key that has had what it may have."""

    name = "browser"

    async def begin_usage(self, scope: Scope) -> Usage:
        raise TooMany("the key has no more audio", retry_after=60.0)


class Scene:
    def __init__(self, caller: Caller = ANONYMOUS) -> None:
        self.engine = Engine()
        handle, tokenizers = cast(EngineClient, self.engine), TokenizerCache()
        tokenizers._read = dict.fromkeys(self.engine.models, TOKENIZER)
        self.live = LiveService(handle, ModelDirectory(handle, ["live"], ["clips"]), tokenizers)
        self.told: list[Message] = []
        self.on = RealtimeConnection(self.live, caller, "openai", self._say)
        self.on.configure([])

    async def _say(self, message: Message) -> None:
        self.told.append(message)

    async def read(self, kind: str, **fields: object) -> None:
        await self.on.handle_event(ClientEvent(kind, **fields))  # type: ignore[arg-type]

    @property
    def number(self) -> int:
        return max(self.engine.receivers)

    def kinds(self) -> list[str]:
        return [told["type"] for told in self.told]


def scene(play: Callable[[Scene], Awaitable[None]], caller: Caller = ANONYMOUS) -> tuple[Scene, int | None]:
    """And the code that it was closed with."""

    async def run() -> tuple[Scene, int | None]:
        made, closed = Scene(caller), None
        try:
            async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
                telling = tasks.create_task(made.on.send_events())
                await play(made)
                telling.cancel()
        except* ConnectionOver as over:
            closed = cast(ConnectionOver, over.exceptions[0]).code
        finally:
            made.on.disconnect()
        return made, closed

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("caller", "kind", "code", "close"),
    [
        (Removed(), "authentication_error", "invalid_api_key", 1008),
        (Spent(), "rate_limit_error", "rate_limit_exceeded", 1013),
    ],
)
def test_caller_without_permission_to_stream(caller: Caller, kind: str, code: str, close: int) -> None:
    async def play(on: Scene) -> None:
        await on.read("input_audio_buffer.append", audio=SECOND)

    played, closed = scene(play, caller)
    (told,) = played.told
    assert (told["error"]["type"], told["error"]["code"], closed) == (kind, code, close)
    assert len(played.live) == 0


def test_server_at_capacity_closes_with_an_error() -> None:
    async def play(on: Scene) -> None:
        on.engine.is_ready = False
        await on.read("input_audio_buffer.append", audio=SECOND)

    played, closed = scene(play)
    (told,) = played.told
    assert (told["error"]["type"], told["error"]["code"], closed) == ("server_error", "busy", 1013)


def test_failed_item_is_reported() -> None:
    async def play(on: Scene) -> None:
        await on.read("input_audio_buffer.append", audio=SECOND)
        on.engine.say(engine.SpeechStarted(on.number, 0.2), engine.StreamTokens(on.number, tokens("ab", 0.2), 0.5))
        on.engine.say(engine.Failed(on.number, "engine_failed", "it broke"))
        await asyncio.Event().wait()  # it is ended from the other side

    played, closed = scene(play)
    assert closed == 1011
    assert played.kinds() == ["input_audio_buffer.speech_started", f"{ASR}.delta", f"{ASR}.failed", "error"]
    failed, error = played.told[-2:]
    assert failed["item_id"] == played.told[0]["item_id"]
    assert failed["error"] == {"type": "server_error", "code": "engine_failed", "message": "it broke", "param": None}
    assert error["error"]["code"] == "engine_failed"


def test_stopping_server_closes_the_connection() -> None:
    async def play(on: Scene) -> None:
        await on.read("input_audio_buffer.append", audio=SECOND)
        on.live.stop()
        await asyncio.Event().wait()  # it is ended from the other side

    assert scene(play)[1] == 1012


def test_update_changes_endpointing_of_the_current_turn() -> None:
    async def play(on: Scene) -> None:
        await on.read("input_audio_buffer.append", audio=SECOND)
        vad = {"type": "server_vad", "silence_duration_ms": 900}
        await on.read("session.update", session={"audio": {"input": {"turn_detection": vad}}})

    (configured,) = scene(play)[0].engine.of(engine.Configure)
    assert configured.endpointing.silence == 0.9


WILD = [None, True, 0, -1, 1.5, 10**30, float(10**300), "", "x", [], [[]], {}, {"type": []}, {"a": {}}]
GENERAL = ["format", "transcription", "turn_detection", "noise_reduction"]
FLAT = ["type", "audio", "include", "input_audio_format", "input_audio_transcription", "turn_detection"]
OF_NIM = {
    "input_audio_params": ["sample_rate_hz", "num_channels"],
    "endpointing_config": ["stop_history", "stop_history_eou"],
    "recognition_config": ["enable_word_time_offsets"],
    "input_audio_transcription": ["language", "model"],
}


@pytest.mark.parametrize("dialect", ["openai", "flat", "nim", "responses"])
def test_any_session_is_accepted_or_rejected(dialect: Dialect) -> None:
    sessions: list[Message] = [{name: value} for name in [*FLAT, *OF_NIM] for value in WILD]
    sessions += [{"audio": {"input": value}} for value in WILD]
    sessions += [{"audio": {"input": {name: value}}} for name in GENERAL for value in WILD]
    sessions += [{name: {each: value}} for name, parts in OF_NIM.items() for each in parts for value in WILD]

    async def play(on: Scene) -> None:
        for session in sessions:
            on.on = RealtimeConnection(on.live, ANONYMOUS, dialect, on._say)
            await on.read("session.update", session=session)
            assert on.told[-1]["type"] in ("session.updated", "error"), session

    told = scene(play)[0].told
    assert len(told) == len(sessions)
    assert {message["type"] for message in told} == {"session.updated", "error"}


def render(*events: object) -> list[Message]:
    items = Items(IdSource(), is_flat=False)
    return [told for event in events for told in items.render_event(event, Session(), TOKENIZER)]  # type: ignore[arg-type]


def final(text: str) -> Final:
    return Final(1, text, (), 0.2, 0.9, "silence", "live", None, None)


def deltas(told: list[Message]) -> list[str]:
    return [message["delta"] for message in told if message["type"] == f"{ASR}.delta"]


ENDED = UtteranceEnded(1, 1.0, "silence")


def test_deltas_contain_stable_words() -> None:
    told = render(
        SpeechStarted(1, 0.2),
        Partial(1, "", "hel", (), 0.4),
        Partial(1, "hello", " wor", (), 0.6),
        Partial(1, "hello", " world", (), 0.8),
        ENDED,
        final("hello world"),
    )
    assert deltas(told) == ["hello", " world"]
    assert told[-1]["transcript"] == "hello world"


def test_contradicting_transcript_has_no_delta() -> None:
    told = render(SpeechStarted(1, 0.2), Partial(1, "hello", " word", (), 0.6), ENDED, final("yellow world"))
    assert deltas(told) == ["hello"]
    assert told[-1]["transcript"] == "yellow world"


def test_speech_padding_does_not_overlap_another_item() -> None:
    second = (SpeechStarted(2, 1.1), UtteranceEnded(2, 1.9, "silence"))
    told = render(SpeechStarted(1, 0.8), ENDED, final("hello"), *second)
    starts = [message["audio_start_ms"] for message in told if "audio_start_ms" in message]
    assert starts == [500, 1000]
