"""Pipecat's whole pipeline as in voice agents: a real-time source, Silero, and a speech service.

Silero reports each pause between words, where the service requests a final although the speaker continues: `Finalize`
in Deepgram's protocol, `commit` in OpenAI's, nothing in NVIDIA's. No word may be lost at any of them.
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
"""Silence before the speech, so that chunks begin at different positions. At each of them the tiny model recognizes
every word if no chunk is flushed."""


class Listener(FrameProcessor):
    """Collects the frames of the pipeline."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append(frame)
        await self.push_frame(frame, direction)

    def of(self, type_: type[Frame]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, type_)]

    @property
    def transcript(self) -> str:
        return " ".join(frame.text.strip() for frame in self.of(TranscriptionFrame) if frame.text.strip())


def deepgram(server: Server) -> FrameProcessor:
    return DeepgramSTTService(api_key="any", base_url=server.url(""), sample_rate=RATE)


def openai(server: Server) -> FrameProcessor:
    return OpenAIRealtimeSTTService(api_key="none", base_url=server.url("/v1/realtime"))


def nvidia(server: Server) -> FrameProcessor:
    address = f"{server.host}:{server.ports['grpc']}"
    return NvidiaSTTService(server=address, use_ssl=False, sample_rate=RATE)


async def transcribe(service: FrameProcessor, offset_ms: int) -> Listener:
    """Sends the speech through a pipeline in real time, then silence until every word has come."""
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
        for silence_packets in range(10**6):
            if silence_packets > 50 and len(listener.transcript.split()) >= len(SAID.split()):
                break
            if silence_packets > 750:
                break  # after 15 s, missing words are lost
            await worker.queue_frame(SILENCE)
            await asyncio.sleep(PACKET_MS / 1000)
        await worker.queue_frame(EndFrame())
        await running
    return listener


@pytest.mark.parametrize("service", [deepgram, openai, nvidia])
async def test_no_words_are_lost_in_five_streams(server: Server, service: Callable[[Server], FrameProcessor]) -> None:
    listeners = await asyncio.gather(*(transcribe(service(server), offset) for offset in OFFSETS_MS))
    assert [listener.transcript for listener in listeners] == [SAID] * len(OFFSETS_MS)
    assert not [frame.error for listener in listeners for frame in listener.of(ErrorFrame)]
    stops = [len(listener.of(VADUserStoppedSpeakingFrame)) for listener in listeners]
    assert min(stops) >= 2  # the speech has pauses
