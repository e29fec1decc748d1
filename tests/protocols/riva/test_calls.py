"""How calls end, before an engine that says what the test wants."""

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
from tests.protocols.riva.calling import FORCE, configured, plain
from tests.protocols.riva.playing import CONFIG, INVALID, KEYED, SECOND, Locked, Place, at, refusal, until
from tests.protocols.servers import DEMO
from tests.service.fake_engine import tokens


@pytest.mark.parametrize("given", [(), (("authorization", "Bearer wrong"),)])
def test_missing_key_is_rejected(given: tuple[tuple[str, str], ...]) -> None:
    async def play(place: Place) -> None:
        unknown = grpc.StatusCode.UNAUTHENTICATED
        await refusal(place.riva.recognize(RecognizeRequest(), metadata=given), unknown, "a key is needed", "Bearer")
        await refusal(place.riva.models(RivaSpeechRecognitionConfigRequest(), metadata=given), unknown)
        await refusal(place.riva.stream(metadata=given), unknown)

    at(play)


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (Forbidden("not for live audio"), grpc.StatusCode.PERMISSION_DENIED, None),
        (TooMany("2 streams are open", retry_after=7.0), grpc.StatusCode.RESOURCE_EXHAUSTED, "7"),
    ],
)
def test_key_without_permission(error: Exception, code: grpc.StatusCode, retry: str | None) -> None:
    async def play(place: Place) -> None:
        call = place.riva.stream(iter([configured(CONFIG), SECOND]), **KEYED)
        trailing = await refusal(call, code, str(error))
        assert trailing.get("retry-after") == retry

    at(play, Locked(error))


@pytest.mark.parametrize(
    ("requests", "parts"),
    [
        ([], ["streaming_config"]),
        ([SECOND], ["streaming_config"]),
        ([StreamingRecognizeRequest()], ["streaming_config"]),
        ([configured(CONFIG), configured(CONFIG)], ["streaming_config was sent twice"]),
        ([configured(CONFIG), SECOND, configured(CONFIG)], ["streaming_config was sent twice"]),
        ([configured(RecognitionConfig(encoding=7))], ["7", "LINEAR_PCM"]),  # type: ignore[arg-type]
        ([configured(RecognitionConfig(encoding=1, sample_rate_hertz=1))], ["sample rate 1", "8000"]),  # type: ignore[arg-type]
        ([configured(RecognitionConfig(audio_channel_count=9))], ["9 channels"]),
        ([configured(RecognitionConfig(custom_configuration={"stop_history": "?"}))], ["stop_history", "number"]),
    ],
)
def test_invalid_requests_are_named(requests: list[StreamingRecognizeRequest], parts: list[str]) -> None:
    async def play(place: Place) -> None:
        await refusal(place.riva.stream(iter(requests), **KEYED), INVALID, *parts)

    at(play)


def test_model_without_live_support() -> None:
    async def play(place: Place) -> None:
        call = place.riva.stream(iter([configured(RecognitionConfig(model="clips"))]), **KEYED)
        await refusal(call, INVALID, "clips is not for live audio", "live")
        request = RivaSpeechRecognitionConfigRequest(model_name="none")
        await refusal(place.riva.models(request, **KEYED), grpc.StatusCode.NOT_FOUND, "'none'", "clips")

    at(play)


def test_invalid_message_bytes() -> None:
    async def play(place: Place) -> None:
        await refusal(place.riva.raw_recognize(b"\xff\xff\xff", **KEYED), INVALID, "RecognizeRequest")
        await refusal(place.riva.raw_stream(iter([b"\xff\xff\xff"]), **KEYED), INVALID, "StreamingRecognizeRequest")
        begun = [configured(CONFIG).SerializeToString(), SECOND.SerializeToString(), b"\x0a\xff"]
        await refusal(place.riva.raw_stream(iter(begun), **KEYED), INVALID, "StreamingRecognizeRequest")
        path = f"/{SERVICE}/Recognize"
        await refusal(place.channel.stream_unary(path, plain, plain)(iter([]), **KEYED), INVALID, "no message")
        await refusal(place.channel.unary_unary(f"/{SERVICE}/Sing")(b""), grpc.StatusCode.UNIMPLEMENTED)

    at(play)


def test_message_over_the_size_limit() -> None:
    async def play(place: Place) -> None:
        request = RecognizeRequest(audio=bytes(2**20 + 1))
        await refusal(place.riva.recognize(request, **KEYED), grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max")

    at(play)


@pytest.mark.parametrize(
    ("answer", "code", "retry"),
    [
        (engine.Failed(0, "engine_failed", "it broke"), grpc.StatusCode.INTERNAL, None),
        (engine.Failed(0, "out_of_memory", "too little", "less"), grpc.StatusCode.RESOURCE_EXHAUSTED, None),
        (engine.Failed(0, "lag_exceeded", "too late", None, 5.0), grpc.StatusCode.RESOURCE_EXHAUSTED, "5"),
        (engine.Cancelled(0), grpc.StatusCode.UNAVAILABLE, "5"),
    ],
)
def test_failed_stream_has_a_status(answer: Any, code: grpc.StatusCode, retry: str | None) -> None:
    async def play(place: Place) -> None:
        call = await place.opened()
        place.hear("ab", 0.2)
        (result,) = (await call.read()).results
        assert result.alternatives[0].transcript == "a b"
        place.engine.say(structs.replace(answer, stream=place.number))
        said = [answer.message, answer.hint or ""] if isinstance(answer, engine.Failed) else ["stopped"]
        trailing = await refusal(call, code, *said)
        assert trailing.get("retry-after") == retry

    at(play)


def test_capacity_error_has_retry_after() -> None:
    async def play(place: Place) -> None:
        call = place.riva.stream(iter([configured(CONFIG), SECOND]), **KEYED)
        say = place.engine.say

        def refuse(*answers: engine.Answer) -> None:
            say(*(engine.Failed(answer.stream, "busy", "no time", "later", 3.0) for answer in answers))

        place.engine.say = refuse  # type: ignore[method-assign]
        trailing = await refusal(call, grpc.StatusCode.RESOURCE_EXHAUSTED, "no time: later")
        assert trailing["retry-after"] == "3"
        place.engine.say = say  # type: ignore[method-assign]

    at(play)


def test_internal_error_is_logged_without_details(caplog: pytest.LogCaptureFixture) -> None:
    async def play(place: Place) -> None:
        place.engine.cards = None  # type: ignore[assignment]
        await refusal(
            place.riva.models(RivaSpeechRecognitionConfigRequest(), **KEYED),
            grpc.StatusCode.INTERNAL,
            "internal server error",
        )

    at(play)
    assert "serving a connection ended unexpectedly" in caplog.text


def test_forced_final_echoes_the_request_id() -> None:
    async def play(place: Place) -> None:
        call = await place.opened(StreamingRecognizeRequest(audio_content=bytes(3200), id=RequestId(value="seven")))
        place.hear("abc", 0.2)
        assert not (await call.read()).results[0].is_final
        await call.write(FORCE)
        await until(lambda: place.engine.of(engine.Finalize))
        asked = cast(engine.Finalize, place.engine.of(engine.Finalize)[0])
        place.engine.say(engine.UtteranceEnded(place.number, 0.5, "asked"), engine.Marker(place.number, asked.marker))
        response = await call.read()
        assert response.id.value == "seven"
        assert [(result.is_final, result.alternatives[0].transcript) for result in response.results] == [
            (True, "a b c")
        ]
        await call.done_writing()
        await until(lambda: place.engine.of(engine.Close))
        place.engine.say(engine.Finished(place.number))
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    at(play)


def test_empty_forced_final() -> None:
    async def play(place: Place) -> None:
        call = place.riva.stream(**KEYED)
        await call.write(configured(CONFIG))
        await call.write(StreamingRecognizeRequest(audio_content=b"", runtime_config={"force_eou": "true", "x": "y"}))
        await until(lambda: place.engine.of(engine.Finalize))
        place.engine.say(engine.Marker(place.number, 1))
        (result,) = (await call.read()).results
        assert (result.is_final, result.alternatives[0].transcript) == (True, "")
        await call.done_writing()
        await until(lambda: place.engine.of(engine.Close))
        place.engine.say(engine.Finished(place.number))
        assert await call.read() is grpc.aio.EOF
        assert dict(await call.trailing_metadata())["conure-ignored"] == "runtime_config.x"

    at(play)


def test_no_results_without_audio() -> None:
    async def play(place: Place) -> None:
        call = place.riva.stream(iter([configured(RecognitionConfig(max_alternatives=3))]), **KEYED)
        assert dict(await call.initial_metadata())["conure-ignored"] == "max_alternatives"
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    assert not at(play).engine.asked


async def begun_within_a_deadline(place: Place) -> None:
    """As short a one as is enough on this machine, now."""
    seconds = 0.5
    while not place.engine.of(engine.Audio):
        call = place.riva.stream(timeout=seconds, **KEYED)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.write(configured(CONFIG))
            await call.write(SECOND)
            await until(lambda call=call: place.engine.of(engine.Audio) or call.done())
        seconds *= 2


@pytest.mark.parametrize("leave", ["cancel", "deadline", "hang up"])
def test_disconnect_frees_the_slot(leave: str) -> None:
    async def play(place: Place) -> None:
        if leave == "deadline":
            await begun_within_a_deadline(place)
        else:
            call = await place.opened()
        if leave == "cancel":
            call.cancel()
        elif leave == "hang up":
            await place.channel.close()
        await until(lambda: place.engine.of(engine.Cancel))
        assert not len(place.live)

    at(play)


def test_cancelled_recording_is_discarded() -> None:
    async def play(place: Place) -> None:
        request = RecognizeRequest(config=CONFIG, audio=DEMO.read_bytes())
        await refusal(place.riva.recognize(request, timeout=0.5, **KEYED), grpc.StatusCode.DEADLINE_EXCEEDED)
        await until(lambda: not place.behind.files._readings)

    at(play)


def test_slow_reader_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "SEND_TIMEOUT_SECONDS", 0.3)

    async def play(place: Place) -> None:
        call = await place.opened()
        while not place.engine.of(engine.Cancel):
            if place.engine.receivers:
                place.hear("abcdefghij" * 300, 0.2)
            await asyncio.sleep(0.02)
        await refusal(call, grpc.StatusCode.ABORTED, "nothing was read")

    at(play)


def test_stopped_stream_has_a_status() -> None:
    async def play(place: Place) -> None:
        call = await place.opened()
        for stream in place.live._streams.values():
            stream.session.stop(Failed("server_stopped", "the server has stopped", retry_after=5.0))
        trailing = await refusal(call, grpc.StatusCode.UNAVAILABLE, "the server has stopped")
        assert trailing["retry-after"] == "5"

    at(play)


def test_failure_of_one_channel_finishes_the_others() -> None:
    async def play(place: Place) -> None:
        call = place.riva.stream(**KEYED)
        await call.write(
            configured(
                RecognitionConfig(
                    sample_rate_hertz=16_000, audio_channel_count=2, enable_separate_recognition_per_channel=True
                )
            )
        )
        await call.write(SECOND)
        await until(lambda: len(place.engine.of(engine.Audio)) == 2)
        first, second = sorted(place.engine.receivers)
        place.engine.say(engine.Failed(first, "lag_exceeded", "too late", None, 5.0))
        await until(lambda: place.engine.of(engine.Close))
        assert cast(engine.Close, place.engine.of(engine.Close)[0]).stream == second
        place.engine.say(engine.StreamTokens(second, tokens("ab", 0.2), 0.5), engine.Finished(second))
        results = [*(await call.read()).results, *(await call.read()).results]
        assert [(result.channel_tag, result.is_final) for result in results] == [(2, False), (2, True)]
        await refusal(call, grpc.StatusCode.RESOURCE_EXHAUSTED, "too late")

    at(play)
