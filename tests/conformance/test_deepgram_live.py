"""Live transcription with Deepgram's SDK, and with Pipecat's and LiveKit's services for it; versions 1 and 2."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from deepgram import AsyncDeepgramClient, DeepgramClient, DeepgramClientEnvironment
from deepgram.core.api_error import ApiError
from deepgram.core.events import EventType
from deepgram.listen.v1.types import (
    ListenV1Configure,
    ListenV1ConfigureFailure,
    ListenV1Metadata,
    ListenV1Results,
    ListenV1SpeechStarted,
    ListenV1UtteranceEnd,
)
from deepgram.listen.v2.types import ListenV2ConfigureSuccess, ListenV2Connected, ListenV2TurnInfo, ListenV2Warning
from livekit import rtc
from livekit.agents import APIConnectOptions, APIStatusError
from livekit.agents.stt import SpeechEventType
from livekit.plugins import deepgram as livekit
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.deepgram.flux.stt import DeepgramFluxSTTService
from pipecat.services.deepgram.stt import DeepgramSTTService
from pipecat.workers.runner import WorkerRunner

from tests.conformance.speech import RATE, SAID, packets
from tests.protocols.servers import Server
from tests.waiting import PATIENCE

RAW: dict[str, Any] = {"model": "nova-3", "encoding": "linear16", "sample_rate": RATE}
FLUX: dict[str, Any] = {"model": "flux-general-en", "encoding": "linear16", "sample_rate": RATE}
SILENCE = [bytes(RATE // 5)] * 20
"""Two seconds."""


def place(server: Server) -> DeepgramClientEnvironment:
    web, socket = server.base, server.url("")
    return DeepgramClientEnvironment(base=web, production=socket, agent=socket, agent_rest=web)


def transcript_of(messages: list[Any]) -> str:
    finals = [message for message in messages if isinstance(message, ListenV1Results) and message.is_final]
    return " ".join(filter(None, (message.channel.alternatives[0].transcript for message in finals)))


def check_order(messages: list[Any]) -> None:
    """Interims come before finals, and finals tile the audio to the duration in the metadata."""
    results = [message for message in messages if isinstance(message, ListenV1Results)]
    interims = [message for message in results if not message.is_final]
    finals = [message for message in results if message.is_final]
    assert interims[0].channel.alternatives[0].transcript
    assert messages.index(interims[0]) < messages.index(finals[0])
    finalized_until = 0.0
    for message in finals:
        assert message.start == pytest.approx(finalized_until, abs=1e-6)
        finalized_until = message.start + message.duration
    assert isinstance(messages[-1], ListenV1Metadata)
    assert messages[-1].duration == pytest.approx(finalized_until, abs=1e-5)


def test_sync_client(server: Server) -> None:
    client = DeepgramClient(api_key="any", environment=place(server))
    messages: list[Any] = []
    options = RAW | {"interim_results": True, "vad_events": True, "utterance_end_ms": 1000, "punctuate": True}
    with client.listen.v1.connect(**options) as connection:
        connection.on(EventType.MESSAGE, messages.append)
        listening = threading.Thread(target=connection.start_listening)
        listening.start()
        for packet in [*packets(), *SILENCE]:
            connection.send_media(packet)
        connection.send_keep_alive()
        connection.send_close_stream()
        listening.join(PATIENCE)
    assert transcript_of(messages) == SAID
    check_order(messages)
    assert any(isinstance(message, ListenV1SpeechStarted) for message in messages)
    assert any(isinstance(message, ListenV1UtteranceEnd) for message in messages)
    word = (
        next(message for message in messages if isinstance(message, ListenV1Results)).channel.alternatives[0].words[0]
    )
    assert word.punctuated_word == word.word == "seven"


async def receive_until(connection: Any, is_last: Callable[[Any], bool]) -> list[Any]:
    """The messages of the connection, to the first one for which `is_last` is true."""
    messages: list[Any] = []
    async with asyncio.timeout(PATIENCE):
        while not messages or not is_last(messages[-1]):
            messages.append(await connection.recv())
    return messages


async def test_async_client_finalizes(server: Server) -> None:
    client = AsyncDeepgramClient(api_key="any", environment=place(server))
    async with client.listen.v1.connect(**RAW, interim_results=True, endpointing=2000) as connection:
        for packet in packets():
            await connection.send_media(packet)
        await connection.send_finalize()
        messages = await receive_until(connection, lambda message: bool(getattr(message, "from_finalize", False)))
        assert transcript_of(messages) == SAID
        await connection.send_configure(ListenV1Configure(keyterms=["Conure"]))
        (failure,) = await receive_until(connection, lambda message: isinstance(message, ListenV1ConfigureFailure))
        assert failure.code == "CONFIGURE_KEYTERMS_NOT_SUPPORTED"
        await connection.send_close_stream()
        messages += await receive_until(connection, lambda message: isinstance(message, ListenV1Metadata))
        check_order(messages)


@pytest.mark.parametrize("wrong", [{"model": "nothing-like-it"}, {"encoding": "speex"}, {"endpointing": "soon"}])
async def test_rejections_raise_sdk_errors(server: Server, wrong: dict[str, str]) -> None:
    client = AsyncDeepgramClient(api_key="any", environment=place(server))
    with pytest.raises(ApiError) as failure:
        async with client.listen.v1.connect(**(RAW | wrong)):
            pass
    assert failure.value.status_code == 400


async def test_bad_audio_closes_the_connection(server: Server) -> None:
    client = AsyncDeepgramClient(api_key="any", environment=place(server))
    errors: list[Any] = []
    async with client.listen.v1.connect(model="nova-3") as connection:
        connection.on(EventType.ERROR, errors.append)
        await connection.send_media(b"this is no recording" * 100)
        await connection.send_close_stream()
        async with asyncio.timeout(PATIENCE):
            await connection.start_listening()
    assert "DATA-0000" in str(errors)


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_connection_reset_leaves_no_stream(server: Server, version: str) -> None:
    client = AsyncDeepgramClient(api_key="any", environment=place(server))
    listen = getattr(client.listen, version)
    with suppress(Exception):
        async with listen.connect(**(RAW if version == "v1" else FLUX)) as connection:
            for packet in packets()[:20]:
                await connection.send_media(packet)
            await connection.recv()
            connection._websocket.transport.abort()


async def test_flux_turns(server: Server) -> None:
    client = AsyncDeepgramClient(api_key="any", environment=place(server))
    async with client.listen.v2.connect(**FLUX, eager_eot_threshold=0.4, keyterm="parrot") as connection:
        messages: list[Any] = [await connection.recv(), await connection.recv()]
        assert [type(message) for message in messages] == [ListenV2Connected, ListenV2Warning]
        for packet in [*packets(), *SILENCE]:
            await connection.send_media(packet)
        await connection.send_configure({"type": "Configure", "thresholds": {"eot_threshold": 0.8}})
        messages += await receive_until(connection, lambda message: isinstance(message, ListenV2ConfigureSuccess))
        assert messages[-1].thresholds.eot_threshold == 0.8
        await connection.send_close_stream()
        with suppress(Exception):  # the connection closes after the last message
            while True:
                messages.append(await connection.recv())
    turns = [message for message in messages if isinstance(message, ListenV2TurnInfo)]
    assert [message.sequence_id for message in messages] == list(range(len(messages)))
    assert " ".join(message.transcript for message in turns if message.event == "EndOfTurn") == SAID
    events = [message.event for message in turns]
    assert events[0] == "StartOfTurn"
    assert {"Update", "EagerEndOfTurn", "TurnResumed"} <= set(events)


async def test_flux_force_end_turn(server: Server) -> None:
    client = AsyncDeepgramClient(api_key="any", environment=place(server))
    async with client.listen.v2.connect(**FLUX, eot_threshold=1.0) as connection:
        for packet in packets():
            await connection.send_media(packet)
        await connection.send_force_end_turn()
        messages = await receive_until(connection, lambda message: getattr(message, "event", None) == "EndOfTurn")
        assert (messages[-1].transcript, messages[-1].trigger) == (SAID, "manual")


def test_sync_flux_client(server: Server) -> None:
    client = DeepgramClient(api_key="any", environment=place(server))
    messages: list[Any] = []
    with client.listen.v2.connect(**FLUX) as connection:
        connection.on(EventType.MESSAGE, messages.append)
        listening = threading.Thread(target=connection.start_listening)
        listening.start()
        for packet in packets():
            connection.send_media(packet)
        connection.send_close_stream()
        listening.join(PATIENCE)
    turns = [message for message in messages if isinstance(message, ListenV2TurnInfo)]
    assert " ".join(message.transcript for message in turns if message.event == "EndOfTurn") == SAID


# Pipecat


class Listener(FrameProcessor):
    """Collects the frames of the pipeline."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.came = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append(frame)
        self.came.set()
        await self.push_frame(frame, direction)

    def of(self, type_: type[Frame]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, type_)]

    @property
    def transcript(self) -> str:
        return " ".join(frame.text for frame in self.of(TranscriptionFrame) if frame.text)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.came.clear()
                await self.came.wait()


async def run_pipeline(service: Any, script: Callable[[PipelineWorker, Listener], Awaitable[None]]) -> Listener:
    """Runs a pipeline with the service while the script runs."""
    listener = Listener()
    worker = PipelineWorker(Pipeline([service, listener]))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    await script(worker, listener)
    await worker.queue_frame(EndFrame())
    async with asyncio.timeout(PATIENCE):
        await running
    return listener


def frames(silence: bool = False) -> list[InputAudioRawFrame]:
    return [InputAudioRawFrame(packet, RATE, 1) for packet in [*packets(20), *(SILENCE if silence else [])]]


async def test_pipecat(server: Server) -> None:
    service = DeepgramSTTService(api_key="any", base_url=server.url(""), sample_rate=RATE)

    async def script(worker: PipelineWorker, listener: Listener) -> None:
        await worker.queue_frame(VADUserStartedSpeakingFrame())
        await worker.queue_frames(frames())
        await worker.queue_frame(VADUserStoppedSpeakingFrame())
        await listener.wait_until(lambda: any(frame.finalized for frame in listener.of(TranscriptionFrame)))

    listener = await run_pipeline(service, script)
    assert listener.transcript == SAID
    assert listener.frames.index(listener.of(InterimTranscriptionFrame)[0]) < listener.frames.index(
        listener.of(TranscriptionFrame)[0]
    )
    assert not listener.of(ErrorFrame)


async def test_pipecat_flux(server: Server) -> None:
    service = DeepgramFluxSTTService(api_key="any", url=server.url("/v2/listen"), sample_rate=RATE)

    async def script(worker: PipelineWorker, listener: Listener) -> None:
        await worker.queue_frames(frames(silence=True))
        await listener.wait_until(lambda: listener.transcript == SAID)

    listener = await run_pipeline(service, script)
    assert listener.of(InterimTranscriptionFrame)
    assert all(frame.finalized for frame in listener.of(TranscriptionFrame))
    assert not listener.of(ErrorFrame)


# LiveKit


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def events_of(stream: Any, *, flush: bool) -> list[Any]:
    """Sends all audio and receives to the end."""
    for packet in [*packets(50), *([] if flush else SILENCE)]:
        stream.push_frame(rtc.AudioFrame(packet, RATE, 1, len(packet) // 2))
    if flush:
        stream.flush()
    stream.end_input()
    async with asyncio.timeout(PATIENCE):
        return [event async for event in stream]


def check_events(events: list[Any]) -> None:
    kinds = [event.type for event in events]
    assert kinds.index(SpeechEventType.START_OF_SPEECH) < kinds.index(SpeechEventType.INTERIM_TRANSCRIPT)
    assert kinds.index(SpeechEventType.INTERIM_TRANSCRIPT) < kinds.index(SpeechEventType.FINAL_TRANSCRIPT)
    assert SpeechEventType.END_OF_SPEECH in kinds
    finals = [event.alternatives[0] for event in events if event.type == SpeechEventType.FINAL_TRANSCRIPT]
    assert " ".join(final.text for final in finals) == SAID
    assert all(final.confidence > 0 and final.words for final in finals)


async def test_livekit(server: Server, session: aiohttp.ClientSession) -> None:
    service = livekit.STT(api_key="any", base_url=f"{server.base}/v1/listen", http_session=session)
    check_events(await events_of(service.stream(), flush=True))


async def test_livekit_flux(server: Server, session: aiohttp.ClientSession) -> None:
    service = livekit.STTv2(
        api_key="any", base_url=server.url("/v2/listen"), http_session=session, eager_eot_threshold=0.4
    )
    check_events(await events_of(service.stream(), flush=False))


async def test_livekit_receives_rejections(server: Server, session: aiohttp.ClientSession) -> None:
    service = livekit.STT(
        api_key="any", base_url=f"{server.base}/v1/listen", http_session=session, language="tlh", model="nova-2"
    )
    stream = service.stream(conn_options=APIConnectOptions(max_retry=0))
    with pytest.raises(APIStatusError) as failure:
        await events_of(stream, flush=True)
    assert failure.value.status_code == 400


async def test_browser_key_as_subprotocol(server: Server, session: aiohttp.ClientSession) -> None:
    url = f"{server.base}/v1/listen?encoding=linear16&sample_rate={RATE}"
    async with session.ws_connect(url, protocols=["token", "any"]) as socket:
        assert socket.protocol == "token"
        await socket.send_str(json.dumps({"type": "CloseStream"}))
        assert (await socket.receive_json())["type"] == "Metadata"
