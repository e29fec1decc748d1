"""Pipecat's whole pipeline as voice agents build it: a source at the pace of speech, Silero, and a service.

Silero tells of each pause between two words, and the service asks for a final there, while somebody goes on to speak:
`Finalize` over Deepgram's protocol, `commit` over OpenAI's, nothing over NVIDIA's. No word may be lost at any of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    TranscriptionFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.deepgram.stt import DeepgramSTTService
from pipecat.services.nvidia.stt import NvidiaSTTService
from pipecat.services.openai.stt import OpenAIRealtimeSTTService
from pipecat.workers.runner import WorkerRunner

from tests.conformance.speech import RATE, SAID, packets
from tests.protocols.servers import PATIENCE, Server

PACKET_MS = 20
SILENCE = InputAudioRawFrame(bytes(2 * RATE * PACKET_MS // 1000), RATE, 1)
OFFSETS_MS = (0, 20, 60, 100, 120)
"""Silence before the speech: each stream is cut at other places of the model's chunks. At each of them the tiny model
hears every word where nothing is cut."""


class Listener(FrameProcessor):
    """Keeps what comes down the pipeline."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append(frame)
        await self.push_frame(frame, direction)

    def of(self, kind: type[Frame]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    @property
    def said(self) -> str:
        return " ".join(frame.text.strip() for frame in self.of(TranscriptionFrame) if frame.text.strip())


def deepgram(server: Server) -> FrameProcessor:
    return DeepgramSTTService(api_key="any", base_url=server.url(""), sample_rate=RATE)


def openai(server: Server) -> FrameProcessor:
    return OpenAIRealtimeSTTService(api_key="none", base_url=server.url("/v1/realtime"))


def nvidia(server: Server) -> FrameProcessor:
    where = f"{server.host}:{server.ports['grpc']}"
    return NvidiaSTTService(server=where, use_ssl=False, sample_rate=RATE)


async def hears(service: FrameProcessor, offset_ms: int) -> Listener:
    """Speaks once through a pipeline, at the pace of speech, and then is silent until every word was heard."""
    listener = Listener()
    vad = VADProcessor(vad_analyzer=SileroVADAnalyzer(sample_rate=RATE))
    worker = PipelineWorker(Pipeline([vad, service, listener]), cancel_on_idle_timeout=False)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    await asyncio.sleep(0.5)  # the services connect
    await worker.queue_frame(InputAudioRawFrame(bytes(2 * RATE * offset_ms // 1000), RATE, 1))
    for packet in packets(PACKET_MS):
        await worker.queue_frame(InputAudioRawFrame(packet, RATE, 1))
        await asyncio.sleep(PACKET_MS / 1000)
    async with asyncio.timeout(PATIENCE):
        for silent in range(10**6):
            if silent > 50 and len(listener.said.split()) >= len(SAID.split()):
                break
            if silent > 750:
                break  # fifteen seconds: what is missing is lost
            await worker.queue_frame(SILENCE)
            await asyncio.sleep(PACKET_MS / 1000)
        await worker.queue_frame(EndFrame())
        await running
    return listener


@pytest.mark.parametrize("service", [deepgram, openai, nvidia])
async def test_no_words_are_lost_in_five_streams(server: Server, service: Callable[[Server], FrameProcessor]) -> None:
    listeners = await asyncio.gather(*(hears(service(server), offset) for offset in OFFSETS_MS))
    assert [listener.said for listener in listeners] == [SAID] * len(OFFSETS_MS)
    assert not [frame.error for listener in listeners for frame in listener.of(ErrorFrame)]
    stops = [len(listener.of(VADUserStoppedSpeakingFrame)) for listener in listeners]
    assert min(stops) >= 2  # there were pauses in what was said
