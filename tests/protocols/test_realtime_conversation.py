"""A Realtime connection with a scripted engine: rejections, failures, texts that change."""

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

ONE_SECOND = bytes(48_000)


class RemovedKey:
    """The caller of a key that was removed after authentication."""

    name = "browser"

    async def begin_usage(self, scope: Scope) -> Usage:
        raise Unauthorized("the key 'browser' was removed")


class ExhaustedKey:
    """The caller of a key whose limit is reached."""

    name = "browser"

    async def begin_usage(self, scope: Scope) -> Usage:
        raise TooMany("the key has no more audio", retry_after=60.0)


class ScriptedConnection:
    """A connection without a socket, its engine, and the sent messages."""

    def __init__(self, caller: Caller = ANONYMOUS) -> None:
        self.engine = Engine()
        handle, tokenizers = cast(EngineClient, self.engine), TokenizerCache()
        tokenizers._read = dict.fromkeys(self.engine.models_by_name, TOKENIZER)
        self.live = LiveService(handle, ModelDirectory(handle, ["live"], ["clips"]), tokenizers)
        self.messages: list[Message] = []
        self.connection = RealtimeConnection(self.live, caller, "openai", self._send)
        self.connection.configure([])

    async def _send(self, message: Message) -> None:
        self.messages.append(message)

    async def handle(self, type_: str, **fields: object) -> None:
        await self.connection.handle_event(ClientEvent(type_, **fields))  # type: ignore[arg-type]

    @property
    def number(self) -> int:
        return max(self.engine.receivers)

    def types(self) -> list[str]:
        return [message["type"] for message in self.messages]


def run_scenario(
    scenario: Callable[[ScriptedConnection], Awaitable[None]], caller: Caller = ANONYMOUS
) -> tuple[ScriptedConnection, int | None]:
    """Also returns the close code."""

    async def run() -> tuple[ScriptedConnection, int | None]:
        scripted, closed = ScriptedConnection(caller), None
        try:
            async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(scripted.connection.send_events())
                await scenario(scripted)
                sending.cancel()
        except* ConnectionOver as group:
            closed = cast(ConnectionOver, group.exceptions[0]).code
        finally:
            scripted.connection.disconnect()
        return scripted, closed

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("caller", "type_", "code", "close"),
    [
        (RemovedKey(), "authentication_error", "invalid_api_key", 1008),
        (ExhaustedKey(), "rate_limit_error", "rate_limit_exceeded", 1013),
    ],
)
def test_caller_without_permission_to_stream(caller: Caller, type_: str, code: str, close: int) -> None:
    async def scenario(connection: ScriptedConnection) -> None:
        await connection.handle("input_audio_buffer.append", audio=ONE_SECOND)

    scripted, closed = run_scenario(scenario, caller)
    (message,) = scripted.messages
    assert (message["error"]["type"], message["error"]["code"], closed) == (type_, code, close)
    assert len(scripted.live) == 0


def test_server_at_capacity_closes_with_an_error() -> None:
    async def scenario(connection: ScriptedConnection) -> None:
        connection.engine.is_ready = False
        await connection.handle("input_audio_buffer.append", audio=ONE_SECOND)

    scripted, closed = run_scenario(scenario)
    (message,) = scripted.messages
    assert (message["error"]["type"], message["error"]["code"], closed) == ("server_error", "busy", 1013)


def test_failed_item_is_reported() -> None:
    async def scenario(connection: ScriptedConnection) -> None:
        await connection.handle("input_audio_buffer.append", audio=ONE_SECOND)
        connection.engine.say(
            engine.SpeechStarted(connection.number, 0.2), engine.StreamTokens(connection.number, tokens("ab", 0.2), 0.5)
        )
        connection.engine.say(engine.Failed(connection.number, "engine_failed", "it broke"))
        await asyncio.Event().wait()  # the server closes the connection

    scripted, closed = run_scenario(scenario)
    assert closed == 1011
    assert scripted.types() == ["input_audio_buffer.speech_started", f"{ASR}.delta", f"{ASR}.failed", "error"]
    failed, error = scripted.messages[-2:]
    assert failed["item_id"] == scripted.messages[0]["item_id"]
    assert failed["error"] == {"type": "server_error", "code": "engine_failed", "message": "it broke", "param": None}
    assert error["error"]["code"] == "engine_failed"


def test_stopping_server_closes_the_connection() -> None:
    async def scenario(connection: ScriptedConnection) -> None:
        await connection.handle("input_audio_buffer.append", audio=ONE_SECOND)
        connection.live.stop()
        await asyncio.Event().wait()  # the server closes the connection

    assert run_scenario(scenario)[1] == 1012


def test_update_changes_endpointing_of_the_current_turn() -> None:
    async def scenario(connection: ScriptedConnection) -> None:
        await connection.handle("input_audio_buffer.append", audio=ONE_SECOND)
        vad = {"type": "server_vad", "silence_duration_ms": 900}
        await connection.handle("session.update", session={"audio": {"input": {"turn_detection": vad}}})

    (configured,) = run_scenario(scenario)[0].engine.of(engine.Configure)
    assert configured.endpointing.silence == 0.9


ODD_VALUES = [None, True, 0, -1, 1.5, 10**30, float(10**300), "", "x", [], [[]], {}, {"type": []}, {"a": {}}]
AUDIO_FIELDS = ["format", "transcription", "turn_detection", "noise_reduction"]
FLAT_FIELDS = ["type", "audio", "include", "input_audio_format", "input_audio_transcription", "turn_detection"]
NIM_FIELDS = {
    "input_audio_params": ["sample_rate_hz", "num_channels"],
    "endpointing_config": ["stop_history", "stop_history_eou"],
    "recognition_config": ["enable_word_time_offsets"],
    "input_audio_transcription": ["language", "model"],
}


@pytest.mark.parametrize("dialect", ["openai", "flat", "nim", "responses"])
def test_any_session_is_accepted_or_rejected(dialect: Dialect) -> None:
    sessions: list[Message] = [{name: value} for name in [*FLAT_FIELDS, *NIM_FIELDS] for value in ODD_VALUES]
    sessions += [{"audio": {"input": value}} for value in ODD_VALUES]
    sessions += [{"audio": {"input": {name: value}}} for name in AUDIO_FIELDS for value in ODD_VALUES]
    sessions += [{name: {each: value}} for name, parts in NIM_FIELDS.items() for each in parts for value in ODD_VALUES]

    async def scenario(connection: ScriptedConnection) -> None:
        for session in sessions:
            connection.connection = RealtimeConnection(connection.live, ANONYMOUS, dialect, connection._send)
            await connection.handle("session.update", session=session)
            assert connection.messages[-1]["type"] in ("session.updated", "error"), session

    messages = run_scenario(scenario)[0].messages
    assert len(messages) == len(sessions)
    assert {message["type"] for message in messages} == {"session.updated", "error"}


def render(*events: object) -> list[Message]:
    items = Items(IdSource(), is_flat=False)
    return [message for event in events for message in items.render_event(event, Session(), TOKENIZER)]  # type: ignore[arg-type]


def final(text: str) -> Final:
    return Final(1, text, (), 0.2, 0.9, "silence", "live", None, None)


def deltas(messages: list[Message]) -> list[str]:
    return [message["delta"] for message in messages if message["type"] == f"{ASR}.delta"]


UTTERANCE_ENDED = UtteranceEnded(1, 1.0, "silence")


def test_deltas_contain_stable_words() -> None:
    messages = render(
        SpeechStarted(1, 0.2),
        Partial(1, "", "hel", (), 0.4),
        Partial(1, "hello", " wor", (), 0.6),
        Partial(1, "hello", " world", (), 0.8),
        UTTERANCE_ENDED,
        final("hello world"),
    )
    assert deltas(messages) == ["hello", " world"]
    assert messages[-1]["transcript"] == "hello world"


def test_contradicting_transcript_has_no_delta() -> None:
    messages = render(
        SpeechStarted(1, 0.2), Partial(1, "hello", " word", (), 0.6), UTTERANCE_ENDED, final("yellow world")
    )
    assert deltas(messages) == ["hello"]
    assert messages[-1]["transcript"] == "yellow world"


def test_speech_padding_does_not_overlap_another_item() -> None:
    second = (SpeechStarted(2, 1.1), UtteranceEnded(2, 1.9, "silence"))
    messages = render(SpeechStarted(1, 0.8), UTTERANCE_ENDED, final("hello"), *second)
    starts = [message["audio_start_ms"] for message in messages if "audio_start_ms" in message]
    assert starts == [500, 1000]
