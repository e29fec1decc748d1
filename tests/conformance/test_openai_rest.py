"""OpenAI's own client over REST, and the speech-to-text services of LiveKit and Pipecat that use it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from livekit import rtc
from livekit.agents import APIConnectOptions, APIStatusError
from livekit.plugins import openai as livekit_openai
from openai.types.audio import Transcription, TranscriptionVerbose
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.task import PipelineParams
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.tests.utils import run_test

from tests.conformance.speech import PCM, RATE, SAID, WAV, packets
from tests.protocols.servers import MOST_UPLOAD, PATIENCE, Server

SPEECH = WAV.read_bytes()
KEY = "any"


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.base}/v1", api_key=KEY, max_retries=0)


@pytest.fixture
async def async_client(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{server.base}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.parametrize(
    "model", ["tiny", "whisper-1", "gpt-4o-transcribe", "gpt-transcribe", "gpt-4o-transcribe-diarize"]
)
def test_speech(client: openai.OpenAI, model: str) -> None:
    with WAV.open("rb") as file:
        answer = client.audio.transcriptions.create(file=file, model=model)
    assert isinstance(answer, Transcription)
    assert answer.text == SAID
    assert answer.languages
    assert answer.languages[0].code == "en"
    assert answer.usage
    assert (answer.usage.type, answer.usage.seconds) == ("duration", pytest.approx(len(PCM) / 2 / RATE, abs=1e-3))


async def test_speech_to_an_asynchronous_client(async_client: openai.AsyncOpenAI) -> None:
    answers = await asyncio.gather(
        *(async_client.audio.transcriptions.create(file=SPEECH, model="tiny") for _ in range(4))
    )
    assert [answer.text for answer in answers] == [SAID] * 4


@pytest.mark.parametrize(("format_", "prefix"), [("text", SAID), ("srt", "1\n00:00:0"), ("vtt", "WEBVTT\n\n00:00:0")])
def test_plain_formats(client: openai.OpenAI, format_: Any, prefix: str) -> None:
    answer: Any = client.audio.transcriptions.create(file=SPEECH, model="whisper-1", response_format=format_)
    assert isinstance(answer, str)
    assert answer.startswith(prefix)
    assert SAID.split()[-1] in answer


def test_every_field_of_a_segment_and_a_word(client: openai.OpenAI) -> None:
    answer = client.audio.transcriptions.create(
        file=SPEECH,
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    strict = TranscriptionVerbose.model_validate(answer.model_dump(), strict=True)
    assert (strict.text, strict.language) == (SAID, "english")
    assert strict.words
    assert [word.word for word in strict.words] == SAID.split()
    assert strict.segments
    assert "".join(segment.text for segment in strict.segments) == SAID
    assert strict.usage
    assert strict.usage.seconds == strict.duration


def test_every_field_of_a_request(client: openai.OpenAI) -> None:
    raw = client.audio.transcriptions.with_raw_response.create(
        file=("speech", SPEECH, "audio/webm;codecs=opus"),
        model="gpt-4o-transcribe",
        chunking_strategy={"type": "server_vad", "silence_duration_ms": 400, "threshold": 0.4},
        include=["logprobs"],
        keywords=["Kowalczyk", "one, two"],
        language="en",
        languages=["en"],
        prompt="digits",
        response_format="json",
        stream=False,
        temperature=0.2,
    )
    answer = raw.parse()
    assert answer.text == SAID
    assert answer.logprobs
    assert "".join(token.token or "" for token in answer.logprobs) == SAID
    ignored = {name.strip() for name in raw.headers["conure-ignored"].split(",")}
    assert ignored == {"prompt", "keywords", "temperature", "chunking_strategy"}


def test_events(client: openai.OpenAI) -> None:
    events = list(client.audio.transcriptions.create(file=SPEECH, model="tiny", stream=True, include=["logprobs"]))
    deltas = [event for event in events if event.type == "transcript.text.delta"]
    done = events[-1]
    assert deltas
    assert done.type == "transcript.text.done"
    assert done.text == "".join(event.delta for event in deltas) == SAID
    assert done.usage
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens
    assert done.logprobs
    assert "".join(token.token or "" for token in done.logprobs) == SAID


async def test_events_to_an_asynchronous_client(async_client: openai.AsyncOpenAI) -> None:
    text = ""
    async for event in await async_client.audio.transcriptions.create(file=SPEECH, model="tiny", stream=True):
        if event.type == "transcript.text.delta":
            text += event.delta
    assert event.type == "transcript.text.done"
    assert text == event.text == SAID


def test_a_streaming_response(client: openai.OpenAI) -> None:
    with client.audio.transcriptions.with_streaming_response.create(file=SPEECH, model="tiny") as response:
        assert response.headers["content-type"] == "application/json"
        assert response.parse().text == SAID


@pytest.mark.parametrize(
    ("options", "error_type", "param", "code"),
    [
        ({"model": "none"}, openai.NotFoundError, "model", "model_not_found"),
        ({"language": "de"}, openai.BadRequestError, "language", "unsupported_language"),
        ({"languages": ["en", "de"]}, openai.BadRequestError, "language", "unsupported_language"),
        ({"file": b""}, openai.BadRequestError, "file", "unsupported_audio"),
        ({"file": b"this is not audio" * 100}, openai.BadRequestError, "file", "unsupported_audio"),
        ({"file": b"this is not audio" * 100, "stream": True}, openai.BadRequestError, "file", "unsupported_audio"),
        ({"file": bytes(20 * MOST_UPLOAD)}, openai.APIStatusError, "file", "audio_too_long"),
        ({"response_format": "diarized_json"}, openai.BadRequestError, "response_format", "bad_option"),
        ({"known_speaker_names": ["Ann"]}, openai.BadRequestError, "known_speaker_names", "bad_option"),
        ({"include": ["logprobs"], "response_format": "text"}, openai.BadRequestError, "include", "bad_option"),
    ],
)
def test_rejections(client: openai.OpenAI, options: Any, error_type: type, param: str, code: str) -> None:
    with pytest.raises(error_type) as caught:
        client.audio.transcriptions.create(**({"file": SPEECH, "model": "tiny"} | options))
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.body["message"]


def test_translations_are_rejected(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="not supported"):
        client.audio.translations.create(file=SPEECH, model="whisper-1")


def test_models(client: openai.OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert models["tiny"].object == "model"
    assert models["tiny"].model_extra
    assert models["tiny"].model_extra["languages"] == ["en"]
    alias = client.models.retrieve("whisper-1")
    assert alias.model_extra
    assert alias.model_extra["root"] == "tiny"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nvidia/none")
    assert caught.value.code == "model_not_found"


async def test_cancelled_request_leaves_no_work(server: Server, async_client: openai.AsyncOpenAI) -> None:
    """Cancels during the response, and during the events."""
    for stream in (False, True):
        with contextlib.suppress(TimeoutError, openai.APIConnectionError):
            async with asyncio.timeout(0.05):
                await async_client.audio.transcriptions.create(file=SPEECH, model="tiny", stream=stream)
    events = await async_client.audio.transcriptions.create(file=SPEECH, model="tiny", stream=True)
    async for _ in events:
        break
    await events.close()
    assert (await async_client.audio.transcriptions.create(file=SPEECH, model="tiny")).text == SAID


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("stream", ["false", "true"])
def test_connection_reset(server: Server, client: openai.OpenAI, part: float, stream: str) -> None:
    request = httpx.Request(
        "POST",
        f"{server.base}/v1/audio/transcriptions",
        data={"model": "tiny", "stream": stream},
        files={"file": ("speech.wav", SPEECH)},
    )
    body = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    connection = socket.create_connection((server.host, server.web), timeout=PATIENCE)
    connection.sendall(f"POST {request.url.path} HTTP/1.1\r\n{head}\r\n".encode() + body[: int(part * len(body))])
    if part == 1.0 and stream == "true":
        assert connection.recv(10).startswith(b"HTTP/1.1 2")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    assert client.audio.transcriptions.create(file=SPEECH, model="tiny").text == SAID


@pytest.mark.parametrize(
    ("model", "language"), [("whisper-1", "en"), ("gpt-4o-mini-transcribe", "en"), ("gpt-transcribe", "en")]
)
async def test_livekit(server: Server, model: str, language: str) -> None:
    async with livekit_openai.STT(base_url=f"{server.base}/v1", api_key=KEY, model=model) as service:
        frames = [rtc.AudioFrame(data, RATE, 1, len(data) // 2) for data in packets()]
        event = await service.recognize(frames)
    assert event.alternatives[0].text == SAID
    assert event.alternatives[0].language == language


async def test_livekit_receives_rejections(server: Server) -> None:
    async with livekit_openai.STT(base_url=f"{server.base}/v1", api_key=KEY, language="de") as service:
        frame = rtc.AudioFrame(PCM, RATE, 1, len(PCM) // 2)
        with pytest.raises(APIStatusError) as caught:
            await service.recognize([frame], conn_options=APIConnectOptions(max_retry=0))
    assert caught.value.status_code == 400
    assert "it knows: en" in caught.value.message


@pytest.mark.parametrize("model", ["gpt-transcribe", "whisper-1"])
async def test_pipecat(server: Server, model: str) -> None:
    (transcription,) = [frame for frame in await pipecat_frames(server, model) if isinstance(frame, TranscriptionFrame)]
    assert transcription.text == SAID
    assert transcription.finalized
    assert (
        transcription.result.segments[0].avg_logprob < 0
        if model == "whisper-1"
        else transcription.result.logprobs[0].logprob < 0
    )


async def test_pipecat_receives_rejections(server: Server) -> None:
    frames = await pipecat_frames(server, "none")
    assert not any(isinstance(frame, TranscriptionFrame) for frame in frames)
    (refusal,) = [frame for frame in frames if isinstance(frame, ErrorFrame)]
    assert "no model 'none'" in refusal.error


async def pipecat_frames(server: Server, model: str) -> list[Frame]:
    """All frames that the service pushes for one utterance."""
    service = OpenAISTTService(
        base_url=f"{server.base}/v1",
        api_key=KEY,
        include_prob_metrics=True,
        settings=OpenAISTTService.Settings(model=model, keywords=["digits"]),
    )
    audio = [InputAudioRawFrame(audio=data, sample_rate=RATE, num_channels=1) for data in packets()]
    down, up = await run_test(
        service,
        frames_to_send=[VADUserStartedSpeakingFrame(), *audio, VADUserStoppedSpeakingFrame()],
        pipeline_params=PipelineParams(audio_in_sample_rate=RATE),
        start_timeout=PATIENCE,
    )
    return [*down, *up]
