"""How calls end: statuses and metadata, with a scripted engine."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import grpc
import pytest
from msgspec import structs

from conure.engine import messages as engine
from conure.errors import Forbidden, TooMany
from conure.protocols import send_timeout as sending
from conure.protocols.riva.riva_asr_pb2 import (
    RecognitionConfig,
    RecognizeRequest,
    RivaSpeechRecognitionConfigRequest,
    StreamingRecognizeRequest,
)
from conure.protocols.riva.riva_common_pb2 import RequestId
from conure.protocols.riva.server import SERVICE
from conure.service.events import Failed
from tests.protocols.riva.calling import FORCE, configured, identity
from tests.protocols.riva.scripted_server import (
    CONFIG,
    INVALID_ARGUMENT,
    ONE_SECOND,
    WITH_KEY,
    LockedAccess,
    ScriptedServer,
    expect_error,
    run_scenario,
    until,
)
from tests.protocols.servers import DEMO
from tests.service.fake_engine import tokens


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),)])
def test_missing_key_is_rejected(metadata: tuple[tuple[str, str], ...]) -> None:
    async def scenario(server: ScriptedServer) -> None:
        unknown = grpc.StatusCode.UNAUTHENTICATED
        await expect_error(
            server.riva.recognize(RecognizeRequest(), metadata=metadata), unknown, "a key is needed", "Bearer"
        )
        await expect_error(server.riva.models(RivaSpeechRecognitionConfigRequest(), metadata=metadata), unknown)
        await expect_error(server.riva.stream(metadata=metadata), unknown)

    run_scenario(scenario)


@pytest.mark.parametrize(
    ("error", "code", "retry_after"),
    [
        (Forbidden("not for live audio"), grpc.StatusCode.PERMISSION_DENIED, None),
        (TooMany("2 streams are open", retry_after=7.0), grpc.StatusCode.RESOURCE_EXHAUSTED, "7"),
    ],
)
def test_key_without_permission(error: Exception, code: grpc.StatusCode, retry_after: str | None) -> None:
    async def scenario(server: ScriptedServer) -> None:
        call = server.riva.stream(iter([configured(CONFIG), ONE_SECOND]), **WITH_KEY)
        trailing = await expect_error(call, code, str(error))
        assert trailing.get("retry-after") == retry_after

    run_scenario(scenario, LockedAccess(error))


@pytest.mark.parametrize(
    ("requests", "parts"),
    [
        ([], ["streaming_config"]),
        ([ONE_SECOND], ["streaming_config"]),
        ([StreamingRecognizeRequest()], ["streaming_config"]),
        ([configured(CONFIG), configured(CONFIG)], ["streaming_config was sent twice"]),
        ([configured(CONFIG), ONE_SECOND, configured(CONFIG)], ["streaming_config was sent twice"]),
        ([configured(RecognitionConfig(encoding=7))], ["7", "LINEAR_PCM"]),  # type: ignore[arg-type]
        ([configured(RecognitionConfig(encoding=1, sample_rate_hertz=1))], ["sample rate 1", "8000"]),  # type: ignore[arg-type]
        ([configured(RecognitionConfig(audio_channel_count=9))], ["9 channels"]),
        ([configured(RecognitionConfig(custom_configuration={"stop_history": "?"}))], ["stop_history", "number"]),
    ],
)
def test_invalid_requests_are_named(requests: list[StreamingRecognizeRequest], parts: list[str]) -> None:
    async def scenario(server: ScriptedServer) -> None:
        await expect_error(server.riva.stream(iter(requests), **WITH_KEY), INVALID_ARGUMENT, *parts)

    run_scenario(scenario)


def test_model_without_live_support() -> None:
    async def scenario(server: ScriptedServer) -> None:
        call = server.riva.stream(iter([configured(RecognitionConfig(model="clips"))]), **WITH_KEY)
        await expect_error(call, INVALID_ARGUMENT, "clips is not for live audio", "live")
        request = RivaSpeechRecognitionConfigRequest(model_name="none")
        await expect_error(server.riva.models(request, **WITH_KEY), grpc.StatusCode.NOT_FOUND, "'none'", "clips")

    run_scenario(scenario)


def test_invalid_message_bytes() -> None:
    async def scenario(server: ScriptedServer) -> None:
        await expect_error(server.riva.raw_recognize(b"\xff\xff\xff", **WITH_KEY), INVALID_ARGUMENT, "RecognizeRequest")
        await expect_error(
            server.riva.raw_stream(iter([b"\xff\xff\xff"]), **WITH_KEY), INVALID_ARGUMENT, "StreamingRecognizeRequest"
        )
        valid_messages = [configured(CONFIG).SerializeToString(), ONE_SECOND.SerializeToString(), b"\x0a\xff"]
        await expect_error(
            server.riva.raw_stream(iter(valid_messages), **WITH_KEY), INVALID_ARGUMENT, "StreamingRecognizeRequest"
        )
        path = f"/{SERVICE}/Recognize"
        await expect_error(
            server.channel.stream_unary(path, identity, identity)(iter([]), **WITH_KEY), INVALID_ARGUMENT, "no message"
        )
        await expect_error(server.channel.unary_unary(f"/{SERVICE}/Sing")(b""), grpc.StatusCode.UNIMPLEMENTED)

    run_scenario(scenario)


def test_message_over_the_size_limit() -> None:
    async def scenario(server: ScriptedServer) -> None:
        request = RecognizeRequest(audio=bytes(2**20 + 1))
        await expect_error(
            server.riva.recognize(request, **WITH_KEY), grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"
        )

    run_scenario(scenario)


@pytest.mark.parametrize(
    ("answer", "code", "retry_after"),
    [
        (engine.Failed(0, "engine_failed", "it broke"), grpc.StatusCode.INTERNAL, None),
        (engine.Failed(0, "out_of_memory", "too little", "less"), grpc.StatusCode.RESOURCE_EXHAUSTED, None),
        (engine.Failed(0, "lag_exceeded", "too late", None, 5.0), grpc.StatusCode.RESOURCE_EXHAUSTED, "5"),
        (engine.Cancelled(0), grpc.StatusCode.UNAVAILABLE, "5"),
    ],
)
def test_failed_stream_has_a_status(answer: Any, code: grpc.StatusCode, retry_after: str | None) -> None:
    async def scenario(server: ScriptedServer) -> None:
        call = await server.open_stream()
        server.emit_tokens("ab", 0.2)
        (result,) = (await call.read()).results
        assert result.alternatives[0].transcript == "a b"
        server.engine.say(structs.replace(answer, stream=server.number))
        parts = [answer.message, answer.hint or ""] if isinstance(answer, engine.Failed) else ["stopped"]
        trailing = await expect_error(call, code, *parts)
        assert trailing.get("retry-after") == retry_after

    run_scenario(scenario)


def test_capacity_error_has_retry_after() -> None:
    async def scenario(server: ScriptedServer) -> None:
        call = server.riva.stream(iter([configured(CONFIG), ONE_SECOND]), **WITH_KEY)
        original_say = server.engine.say

        def reject(*answers: engine.StreamEvent) -> None:
            original_say(*(engine.Failed(answer.stream, "busy", "no time", "later", 3.0) for answer in answers))

        server.engine.say = reject  # type: ignore[method-assign]
        trailing = await expect_error(call, grpc.StatusCode.RESOURCE_EXHAUSTED, "no time: later")
        assert trailing["retry-after"] == "3"
        server.engine.say = original_say  # type: ignore[method-assign]

    run_scenario(scenario)


def test_internal_error_is_logged_without_details(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(server: ScriptedServer) -> None:
        server.engine.model_infos = None  # type: ignore[assignment]
        await expect_error(
            server.riva.models(RivaSpeechRecognitionConfigRequest(), **WITH_KEY),
            grpc.StatusCode.INTERNAL,
            "internal server error",
        )

    run_scenario(scenario)
    assert "serving a connection ended unexpectedly" in caplog.text


def test_forced_final_echoes_the_request_id() -> None:
    async def scenario(server: ScriptedServer) -> None:
        call = await server.open_stream(
            StreamingRecognizeRequest(audio_content=bytes(3200), id=RequestId(value="seven"))
        )
        server.emit_tokens("abc", 0.2)
        assert not (await call.read()).results[0].is_final
        await call.write(FORCE)
        await until(lambda: server.engine.of(engine.Finalize))
        finalize = cast(engine.Finalize, server.engine.of(engine.Finalize)[0])
        server.engine.say(
            engine.UtteranceEnded(server.number, 0.5, "asked"), engine.Marker(server.number, finalize.marker)
        )
        response = await call.read()
        assert response.id.value == "seven"
        assert [(result.is_final, result.alternatives[0].transcript) for result in response.results] == [
            (True, "a b c")
        ]
        await call.done_writing()
        await until(lambda: server.engine.of(engine.Close))
        server.engine.say(engine.Finished(server.number))
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    run_scenario(scenario)


def test_empty_forced_final() -> None:
    async def scenario(server: ScriptedServer) -> None:
        call = server.riva.stream(**WITH_KEY)
        await call.write(configured(CONFIG))
        await call.write(StreamingRecognizeRequest(audio_content=b"", runtime_config={"force_eou": "true", "x": "y"}))
        await until(lambda: server.engine.of(engine.Finalize))
        server.engine.say(engine.Marker(server.number, 1))
        (result,) = (await call.read()).results
        assert (result.is_final, result.alternatives[0].transcript) == (True, "")
        await call.done_writing()
        await until(lambda: server.engine.of(engine.Close))
        server.engine.say(engine.Finished(server.number))
        assert await call.read() is grpc.aio.EOF
        assert dict(await call.trailing_metadata())["conure-ignored"] == "runtime_config.x"

    run_scenario(scenario)


def test_no_results_without_audio() -> None:
    async def scenario(server: ScriptedServer) -> None:
        call = server.riva.stream(iter([configured(RecognitionConfig(max_alternatives=3))]), **WITH_KEY)
        assert dict(await call.initial_metadata())["conure-ignored"] == "max_alternatives"
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    assert not run_scenario(scenario).engine.asked


async def open_within_a_deadline(server: ScriptedServer) -> None:
    """Finds the shortest deadline within which a stream opens on this machine."""
    seconds = 0.5
    while not server.engine.of(engine.Audio):
        call = server.riva.stream(timeout=seconds, **WITH_KEY)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.write(configured(CONFIG))
            await call.write(ONE_SECOND)
            await until(lambda call=call: server.engine.of(engine.Audio) or call.done())
        seconds *= 2


@pytest.mark.parametrize("leave", ["cancel", "deadline", "hang up"])
def test_disconnect_frees_the_slot(leave: str) -> None:
    async def scenario(server: ScriptedServer) -> None:
        if leave == "deadline":
            await open_within_a_deadline(server)
        else:
            call = await server.open_stream()
        if leave == "cancel":
            call.cancel()
        elif leave == "hang up":
            await server.channel.close()
        await until(lambda: server.engine.of(engine.Cancel))
        assert not len(server.live)

    run_scenario(scenario)


def test_cancelled_recording_is_discarded() -> None:
    async def scenario(server: ScriptedServer) -> None:
        request = RecognizeRequest(config=CONFIG, audio=DEMO.read_bytes())
        await expect_error(server.riva.recognize(request, timeout=0.5, **WITH_KEY), grpc.StatusCode.DEADLINE_EXCEEDED)
        await until(lambda: not server.services.files._readings)

    run_scenario(scenario)


def test_slow_reader_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "SEND_TIMEOUT_SECONDS", 0.3)

    async def scenario(server: ScriptedServer) -> None:
        call = await server.open_stream()
        while not server.engine.of(engine.Cancel):
            if server.engine.receivers:
                server.emit_tokens("abcdefghij" * 300, 0.2)
            await asyncio.sleep(0.02)
        await expect_error(call, grpc.StatusCode.ABORTED, "nothing was read")

    run_scenario(scenario)


def test_stopped_stream_has_a_status() -> None:
    async def scenario(server: ScriptedServer) -> None:
        call = await server.open_stream()
        for stream in server.live._streams.values():
            stream.session.stop(Failed("server_stopped", "the server has stopped", retry_after=5.0))
        trailing = await expect_error(call, grpc.StatusCode.UNAVAILABLE, "the server has stopped")
        assert trailing["retry-after"] == "5"

    run_scenario(scenario)


def test_failure_of_one_channel_finishes_the_others() -> None:
    async def scenario(server: ScriptedServer) -> None:
        call = server.riva.stream(**WITH_KEY)
        await call.write(
            configured(
                RecognitionConfig(
                    sample_rate_hertz=16_000, audio_channel_count=2, enable_separate_recognition_per_channel=True
                )
            )
        )
        await call.write(ONE_SECOND)
        await until(lambda: len(server.engine.of(engine.Audio)) == 2)
        first, second = sorted(server.engine.receivers)
        server.engine.say(engine.Failed(first, "lag_exceeded", "too late", None, 5.0))
        await until(lambda: server.engine.of(engine.Close))
        assert cast(engine.Close, server.engine.of(engine.Close)[0]).stream == second
        server.engine.say(engine.StreamTokens(second, tokens("ab", 0.2), 0.5), engine.Finished(second))
        results = [*(await call.read()).results, *(await call.read()).results]
        assert [(result.channel_tag, result.is_final) for result in results] == [(2, False), (2, True)]
        await expect_error(call, grpc.StatusCode.RESOURCE_EXHAUSTED, "too late")

    run_scenario(scenario)
