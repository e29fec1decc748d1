"""OpenAI's own Realtime client, and the services of LiveKit and Pipecat that use the protocol."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import numpy as np
import openai
import pytest
from livekit import rtc
from livekit.agents import APIError
from livekit.agents import stt as livekit_stt
from livekit.agents.utils import http_context
from livekit.plugins import openai as livekit_openai
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.stt import OpenAIRealtimeSTTService

from tests.conformance.speech import PCM, RATE, SAID, packets
from tests.protocols.servers import Server
from tests.waiting import PATIENCE

ASR = "conversation.item.input_audio_transcription"


def at_24_khz(pcm: bytes) -> bytes:
    samples = np.frombuffer(pcm, "<i2")
    places = np.arange(len(samples) * 3 // 2) * 2 / 3
    return np.interp(places, np.arange(len(samples)), samples).round().astype("<i2").tobytes()


SPEECH = at_24_khz(PCM)
PIECES = [base64.b64encode(SPEECH[begin : begin + 4_800]).decode() for begin in range(0, len(SPEECH), 4_800)]
CLIENT_COMMITS: Any = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}


def client_of(server: Server, key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        api_key=key, base_url=f"{server.base}/v1", websocket_base_url=server.url("/v1"), max_retries=0
    )


@asynccontextmanager
async def connected(server: Server, key: str = "none") -> AsyncIterator[Any]:
    async with client_of(server, key).realtime.connect(extra_query={"intent": "transcription"}) as connection:
        created = await connection.recv()
        assert created.type == "session.created"
        yield connection


async def receive_until(connection: Any, type_: str) -> list[Any]:
    events = []
    async with asyncio.timeout(PATIENCE):
        async for event in connection:
            events.append(event)
            if event.type == type_:
                return events
    raise AssertionError(events)


async def append_speech(connection: Any) -> None:
    for piece in PIECES:
        await connection.input_audio_buffer.append(audio=piece)


def transcript_of(events: list[Any]) -> str:
    return " ".join(event.transcript for event in events if event.type == f"{ASR}.completed" and event.transcript)


async def test_deltas_come_before_the_transcript(server: Server) -> None:
    async with connected(server) as connection:
        await connection.session.update(session=CLIENT_COMMITS)
        assert (await connection.recv()).type == "session.updated"
        await append_speech(connection)
        await connection.input_audio_buffer.commit()
        events = await receive_until(connection, f"{ASR}.completed")
    deltas = [event.delta for event in events if event.type == f"{ASR}.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == transcript_of(events) == SAID
    assert events[-1].usage.type == "duration"
    assert all(event.event_id for event in events)


async def test_server_turn_detection(server: Server) -> None:
    turns: Any = {"type": "server_vad", "silence_duration_ms": 350}
    async with connected(server) as connection:
        await connection.session.update(
            session={"type": "transcription", "audio": {"input": {"turn_detection": turns}}}
        )
        await append_speech(connection)
        await connection.input_audio_buffer.append(audio=base64.b64encode(bytes(48_000)).decode())
        events: list[Any] = []
        while len(transcript_of(events)) < len(SAID):
            events += await receive_until(connection, f"{ASR}.completed")
    assert transcript_of(events) == SAID
    started = [event.item_id for event in events if event.type == "input_audio_buffer.speech_started"]
    stopped = [event.item_id for event in events if event.type == "input_audio_buffer.speech_stopped"]
    assert started == stopped == [event.item_id for event in events if event.type == f"{ASR}.completed"]


async def test_the_first_version(server: Server) -> None:
    beta = client_of(server).beta.realtime
    async with beta.connect(model="tiny", extra_query={"intent": "transcription"}) as connection:
        assert (await connection.recv()).type == "transcription_session.created"
        session: Any = {"input_audio_format": "pcm16", "turn_detection": None}
        await connection.transcription_session.update(session=session)
        assert (await connection.recv()).type == "transcription_session.updated"
        await append_speech(connection)
        await connection.input_audio_buffer.commit()
        assert transcript_of(await receive_until(connection, f"{ASR}.completed")) == SAID


async def test_client_secret_opens_a_session(server: Server) -> None:
    minted = await client_of(server).realtime.client_secrets.create(
        session=CLIENT_COMMITS, expires_after={"anchor": "created_at", "seconds": 60}
    )
    assert minted.session.type == "transcription"
    async with connected(server, minted.value) as connection:
        await append_speech(connection)
        await connection.input_audio_buffer.commit()
        events = await receive_until(connection, f"{ASR}.completed")
        assert transcript_of(events) == SAID
    first = await client_of(server).beta.realtime.transcription_sessions.create()
    assert first.client_secret.value


async def test_rejections(server: Server) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client_of(server).realtime.client_secrets.create(
            session={"type": "transcription", "audio": {"input": {"transcription": {"model": "none"}}}}
        )
    assert unknown.value.code == "model_not_found"
    async with connected(server) as connection:
        await connection.input_audio_buffer.commit(event_id="mine")
        fault = (await connection.recv()).error
        assert (fault.code, fault.event_id) == ("input_audio_buffer_commit_empty", "mine")
        await connection.input_audio_buffer.append(audio="not base64")
        assert (await connection.recv()).error.code == "invalid_base64"
        await connection.session.update(session={"type": "realtime"})
        assert (await connection.recv()).error.param == "session.type"


async def test_aborted_client_leaves_no_stream(server: Server) -> None:
    async with connected(server) as connection:
        await connection.session.update(session=CLIENT_COMMITS)
        await append_speech(connection)
        await receive_until(connection, f"{ASR}.delta")
        connection._connection.transport.abort()
    server.settled(0)


# LiveKit.


@asynccontextmanager
async def livekit(server: Server, **options: Any) -> AsyncIterator[livekit_stt.STT]:
    async with http_context.open():
        made = livekit_openai.STT(base_url=f"{server.base}/v1", api_key="none", use_realtime=True, **options)
        try:
            yield made
        finally:
            await made.aclose()


def frames(silence_seconds: float) -> Iterator[rtc.AudioFrame]:
    for packet in [*packets(50), *[bytes(1_600)] * round(silence_seconds * 20)]:
        yield rtc.AudioFrame(packet, RATE, 1, len(packet) // 2)


async def livekit_events(stream: Any, words: int) -> list[Any]:
    events: list[Any] = []
    async with asyncio.timeout(PATIENCE):
        async for event in stream:
            events.append(event)
            if len(finals(events).split()) >= words:
                return events
    raise AssertionError(events)


def finals(events: list[Any]) -> str:
    type_ = livekit_stt.SpeechEventType.FINAL_TRANSCRIPT
    return " ".join(event.alternatives[0].text for event in events if event.type == type_)


async def test_livekit(server: Server) -> None:
    words = len(SAID.split())
    async with livekit(server, model="gpt-4o-mini-transcribe") as made:
        for _ in range(2):  # the second run uses the same socket
            async with made.stream() as stream:
                for frame in frames(1.0):
                    stream.push_frame(frame)
                events = await livekit_events(stream, words)
                assert finals(events) == SAID
                kinds = [event.type for event in events]
                assert kinds[0] == livekit_stt.SpeechEventType.START_OF_SPEECH
                assert livekit_stt.SpeechEventType.END_OF_SPEECH in kinds
                assert kinds.index(livekit_stt.SpeechEventType.INTERIM_TRANSCRIPT) < kinds.index(
                    livekit_stt.SpeechEventType.FINAL_TRANSCRIPT
                )


async def test_livekit_updates_options(server: Server) -> None:
    async with livekit(server, model="gpt-4o-mini-transcribe", language="en") as made, made.stream() as stream:
        for frame in frames(1.0):
            stream.push_frame(frame)
        await livekit_events(stream, len(SAID.split()))
        made.update_options(turn_detection={"type": "server_vad", "silence_duration_ms": 300}, prompt="numbers")
        for frame in frames(1.0):
            stream.push_frame(frame)
        assert finals(await livekit_events(stream, len(SAID.split()))) == SAID


async def test_livekit_receives_errors(server: Server) -> None:
    async with livekit(server, model="tiny", language="xx") as made, made.stream() as stream:
        with pytest.raises(APIError, match="xx"):
            await livekit_events(stream, 1)


# Pipecat.


class Listener(FrameProcessor):
    """The last processor of a pipeline."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.put_nowait(frame)
        await self.push_frame(frame, direction)


@contextmanager
def collect_errors(task: PipelineTask) -> Iterator[list[str]]:
    faults: list[str] = []

    @task.event_handler("on_pipeline_error")
    async def record(_: PipelineTask, frame: ErrorFrame) -> None:
        faults.append(frame.error)

    yield faults


@asynccontextmanager
async def pipecat(server: Server, **options: Any) -> AsyncIterator[tuple[PipelineTask, Listener, list[str]]]:
    service = OpenAIRealtimeSTTService(api_key="none", base_url=server.url("/v1/realtime"), **options)
    listener = Listener()
    task = PipelineTask(Pipeline([service, listener]), params=PipelineParams(audio_in_sample_rate=RATE))
    with collect_errors(task) as faults:
        running = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))
        yield task, listener, faults
        await task.queue_frame(EndFrame())
        await running


async def transcribed(listener: Listener) -> tuple[str, int]:
    """The text, up to the expected number of words, and the number of interim texts before the first final."""
    text, interim = "", 0
    async with asyncio.timeout(PATIENCE):
        while len(text.split()) < len(SAID.split()):
            frame = await listener.frames.get()
            if isinstance(frame, TranscriptionFrame):
                text = f"{text} {frame.text}".strip()
            interim += isinstance(frame, InterimTranscriptionFrame) and not text
    return text, interim


async def test_pipecat_turn_detection(server: Server) -> None:
    async with pipecat(server) as (task, listener, faults):
        for packet in packets(20):
            await task.queue_frame(InputAudioRawFrame(packet, RATE, 1))
        await task.queue_frame(VADUserStoppedSpeakingFrame())
        text, interim = await transcribed(listener)
    assert (text, faults) == (SAID, [])
    assert interim > 1


async def test_pipecat_with_server_turn_detection(server: Server) -> None:
    async with pipecat(server, turn_detection={"type": "server_vad"}) as (task, listener, faults):
        for packet in [*packets(20), *[bytes(640)] * 50]:
            await task.queue_frame(InputAudioRawFrame(packet, RATE, 1))
        assert (await transcribed(listener))[0] == SAID
    assert faults == []


async def test_pipecat_receives_errors(server: Server) -> None:
    settings = OpenAIRealtimeSTTService.Settings(model="none")
    async with pipecat(server, settings=settings) as (task, _, faults):
        async with asyncio.timeout(PATIENCE):
            while not faults:
                await task.queue_frame(InputAudioRawFrame(bytes(640), RATE, 1))
                await asyncio.sleep(0.1)
    assert "none" in faults[0]
