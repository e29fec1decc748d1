"""nvidia-riva-client, and the STT services of Pipecat and LiveKit over it."""

from __future__ import annotations

import asyncio
import io
import itertools
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import riva.client
import riva.client.proto.riva_asr_pb2 as theirs
import riva.client.proto.riva_audio_pb2 as their_audio
import riva.client.proto.riva_common_pb2 as their_common
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from livekit import rtc
from livekit.agents import stt
from livekit.plugins import nvidia
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.nvidia.stt import NvidiaSegmentedSTTService, NvidiaSTTService
from pipecat.workers.runner import WorkerRunner
from riva.client.asr import streaming_request_generator

import conure.protocols.riva.riva_asr_pb2 as ours
import conure.protocols.riva.riva_audio_pb2 as our_audio
import conure.protocols.riva.riva_common_pb2 as our_common
from tests.conformance.speech import PCM, RATE, SAID, WAV, packets
from tests.protocols.servers import Server, wait_for

FIRST, REST = SAID.split()[:4], SAID.split()[4:]
SPLIT_SECONDS = 3.92
"""Seconds of audio with the first four words."""


@pytest.fixture
def service(server: Server) -> Iterator[riva.client.ASRService]:
    auth = riva.client.Auth(uri=address(server))
    yield riva.client.ASRService(auth)
    auth.channel.close()


def address(server: Server) -> str:
    return f"{server.host}:{server.ports['grpc']}"


def recognition_config(**fields: Any) -> riva.client.RecognitionConfig:
    defaults = {
        "encoding": riva.client.AudioEncoding.LINEAR_PCM,
        "sample_rate_hertz": RATE,
        "language_code": "en-US",
        "max_alternatives": 1,
        "enable_automatic_punctuation": True,
    }
    return riva.client.RecognitionConfig(**defaults | fields)


def streaming_config(**fields: Any) -> riva.client.StreamingRecognitionConfig:
    return riva.client.StreamingRecognitionConfig(config=recognition_config(**fields), interim_results=True)


def split_results(responses: Any) -> tuple[list[str], list[str]]:
    """Splits results into interims and finals."""
    interims, finals = [], []
    for result in (result for response in responses for result in response.results):
        text = result.alternatives[0].transcript
        (finals if result.is_final else interims).append(text)
    return interims, finals


@pytest.mark.parametrize(
    ("ours_module", "theirs_module"),
    [(ours, theirs), (our_audio, their_audio), (our_common, their_common)],
    ids=lambda m: m.__name__,
)
def test_messages_are_the_same_field_by_field(ours_module: Any, theirs_module: Any) -> None:
    our_proto, their_proto = FileDescriptorProto(), FileDescriptorProto()
    ours_module.DESCRIPTOR.CopyToProto(our_proto)
    theirs_module.DESCRIPTOR.CopyToProto(their_proto)
    assert our_proto == their_proto
    assert (
        ours_module.DESCRIPTOR.serialized_pb == theirs_module.DESCRIPTOR.serialized_pb
    )  # both are registered in one process


def test_stream(service: riva.client.ASRService) -> None:
    interims, finals = split_results(service.streaming_response_generator(packets(), streaming_config()))
    assert " ".join(finals) == SAID
    assert interims
    assert interims[0] in SAID


def test_output_of_their_script(service: riva.client.ASRService) -> None:
    for mode, show_intermediate in (("no", True), ("time", False), ("confidence", False)):
        output = io.StringIO()
        responses = service.streaming_response_generator(packets(), streaming_config(enable_word_time_offsets=True))
        riva.client.print_streaming(
            responses,
            output_file=output,
            additional_info=mode,
            show_intermediate=show_intermediate,
            word_time_offsets=mode == "time",
        )
        printed = output.getvalue()
        if mode == "no":
            finals = [line.split("##")[1].strip() for line in printed.splitlines() if "##" in line]
            assert " ".join(finals) == SAID
            assert ">> seven" in printed
        elif mode == "time":
            assert "Start (ms)" in printed
            assert all(word in printed for word in SAID.split())
        else:
            assert "Stability:" in printed


@pytest.mark.parametrize("chunk", [1600, 100_000])
def test_file_sent_like_their_script(service: riva.client.ASRService, chunk: int) -> None:
    """Sends the whole file with its header and declares no format."""
    config = riva.client.StreamingRecognitionConfig(
        config=riva.client.RecognitionConfig(language_code="en-US", max_alternatives=1), interim_results=True
    )
    riva.client.add_audio_file_specs_to_config(config, WAV)
    with riva.client.AudioChunkFileIterator(WAV, chunk) as chunks:
        _, finals = split_results(service.streaming_response_generator(chunks, config))
    assert " ".join(finals) == SAID


def test_every_option_of_their_scripts(service: riva.client.ASRService) -> None:
    config = streaming_config(
        model="parakeet-1.1b-en-US-asr-streaming-silero-vad-sortformer",
        max_alternatives=2,
        profanity_filter=True,
        verbatim_transcripts=True,
    )
    riva.client.add_word_boosting_to_config(config, ["conure"], 4.0)
    riva.client.add_speaker_diarization_to_config(config, True, 3)
    riva.client.add_endpoint_parameters_to_config(config, 300, 0.2, 800, 300, 0.98, 0.98)
    riva.client.add_custom_configuration_to_config(config, "enable_vad_endpointing:true,neural_vad.onset:0.65")
    responses = service.stub.StreamingRecognize(streaming_request_generator(packets(), config))
    _, finals = split_results(responses)
    assert " ".join(finals) == SAID
    ignored = dict(responses.initial_metadata())["conure-ignored"]
    assert ignored.split(", ") == [
        *("max_alternatives", "profanity_filter", "speech_contexts", "diarization_config"),
        *("stop_threshold", "stop_threshold_eou"),
    ]


def test_two_passes(service: riva.client.ASRService) -> None:
    config = streaming_config()
    riva.client.add_endpoint_parameters_to_config(config, -1, -1.0, 2500, 240, -1.0, -1.0)
    results = [
        result for response in service.streaming_response_generator(packets(), config) for result in response.results
    ]
    first = [result for result in results if result.stability == 1 and not result.is_final]
    assert len(first) > 1
    assert [result.alternatives[0].transcript for result in results if result.is_final] == [SAID]


def test_forced_final(service: riva.client.ASRService) -> None:
    """The final comes while the stream continues."""
    config = streaming_config()
    riva.client.add_endpoint_parameters_to_config(config, -1, -1.0, 5000, -1, -1.0, -1.0)
    split_at = round(SPLIT_SECONDS * RATE) * 2
    finals: list[str] = []

    def requests() -> Iterator[theirs.StreamingRecognizeRequest]:
        yield theirs.StreamingRecognizeRequest(streaming_config=config)
        yield theirs.StreamingRecognizeRequest(audio_content=PCM[:split_at])
        yield theirs.StreamingRecognizeRequest(audio_content=b"", runtime_config={"force_eou": "true"})
        wait_for(lambda: finals, 60)
        yield theirs.StreamingRecognizeRequest(audio_content=PCM[split_at:])

    for response in service.stub.StreamingRecognize(requests()):
        finals += [result.alternatives[0].transcript for result in response.results if result.is_final]
    assert finals == [" ".join(FIRST), " ".join(REST)]


def test_recording(service: riva.client.ASRService, capsys: pytest.CaptureFixture[str]) -> None:
    response = service.offline_recognize(WAV.read_bytes(), riva.client.RecognitionConfig(enable_word_time_offsets=True))
    assert response.results[0].alternatives[0].transcript == SAID
    assert [word.word for word in response.results[0].alternatives[0].words] == SAID.split()
    riva.client.print_offline(response)
    assert f"Final transcript: {SAID}" in capsys.readouterr().out
    future = service.offline_recognize(PCM, recognition_config(), future=True)
    assert future.result().results[0].alternatives[0].transcript == SAID


def test_the_models(service: riva.client.ASRService) -> None:
    response = service.stub.GetRivaSpeechRecognitionConfig(theirs.RivaSpeechRecognitionConfigRequest())
    models = {(config.model_name, config.parameters["type"]) for config in response.model_config}
    assert models == {("tiny-live", "online"), ("tiny", "offline")}
    assert {config.parameters["language_code"] for config in response.model_config} == {"en"}


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"language_code": "tlh"}, "it knows: en"),
        ({"sample_rate_hertz": 4000}, "sample rate 4000"),
        ({"audio_channel_count": 99}, "99 channels"),
        ({"model": "tiny", "encoding": riva.client.AudioEncoding.FLAC}, ""),
    ],
)
def test_rejections(service: riva.client.ASRService, fields: dict[str, Any], part: str) -> None:
    with pytest.raises(grpc.RpcError) as streamed:
        split_results(service.streaming_response_generator(packets(), streaming_config(**fields)))
    with pytest.raises(grpc.RpcError) as recognized:
        service.offline_recognize(PCM, recognition_config(**fields))
    for raised in (streamed, recognized):
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert part in raised.value.details()


def test_their_own_health_messages(server: Server) -> None:
    from riva.client.proto import health_pb2, health_pb2_grpc  # noqa: PLC0415

    with grpc.insecure_channel(address(server)) as channel:
        response = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert response.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("abort", ["close", "cancel", "deadline"])
def test_aborted_clients_leave_no_streams(server: Server, abort: str) -> None:
    """The fixture `nothing_leaks` checks that no stream is left."""
    auth = riva.client.Auth(uri=address(server))
    service = riva.client.ASRService(auth)

    def requests() -> Iterator[theirs.StreamingRecognizeRequest]:
        yield theirs.StreamingRecognizeRequest(streaming_config=streaming_config())
        for packet in itertools.cycle(packets()):
            time.sleep(0.02)
            yield theirs.StreamingRecognizeRequest(audio_content=packet)

    call = service.stub.StreamingRecognize(requests(), timeout=2.0 if abort == "deadline" else None)
    next(iter(call))
    assert server.health()["streams"] == 1
    if abort == "close":
        auth.channel.close()
    elif abort == "cancel":
        call.cancel()
    with pytest.raises(grpc.RpcError):
        split_results(call)
    server.settled(0)
    auth.channel.close()


class Sink(FrameProcessor):
    """Collects the output of a pipeline."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append(frame)
        await self.push_frame(frame, direction)

    def texts(self, type_: type[Frame]) -> list[str]:
        return [frame.text for frame in self.frames if type(frame) is type_]  # type: ignore[attr-defined]


def pipecat_service(server: Server, **options: Any) -> NvidiaSTTService:
    return NvidiaSTTService(server=address(server), use_ssl=False, sample_rate=RATE, **options)


async def run_pipeline(sink: Sink, service: FrameProcessor) -> None:
    """Sends speech at ten times real time, then silence until all words have come."""
    worker = PipelineWorker(Pipeline([service, sink]), cancel_on_idle_timeout=False)

    async def push_speech() -> None:
        await asyncio.sleep(0.5)
        for packet in packets():
            await worker.queue_frame(InputAudioRawFrame(packet, RATE, 1))
            await asyncio.sleep(0.01)
        silence = InputAudioRawFrame(bytes(RATE // 5), RATE, 1)
        until = time.monotonic() + 60
        while len(" ".join(sink.texts(TranscriptionFrame)).split()) < 8 and time.monotonic() < until:
            await worker.queue_frame(silence)
            await asyncio.sleep(0.05)
        await worker.queue_frame(EndFrame())

    speaking = asyncio.create_task(push_speech())
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
    await speaking


async def test_pipecat(server: Server) -> None:
    sink = Sink()
    await run_pipeline(sink, pipecat_service(server))
    assert " ".join(sink.texts(TranscriptionFrame)) == SAID
    models = [type(frame) for frame in sink.frames]
    assert models.index(InterimTranscriptionFrame) < models.index(TranscriptionFrame)
    assert ErrorFrame not in models


async def test_pipecat_with_every_option(server: Server) -> None:
    sink = Sink()
    settings = NvidiaSTTService.Settings(
        boosted_lm_words=["conure"],
        word_time_offsets=True,
        speaker_diarization=True,
        speaker_format="{speaker}: {text}",
    )
    options = {"start_history": 200, "stop_history": 800, "stop_history_eou": 240, "stop_threshold": 0.98}
    custom = "enable_vad_endpointing:true,neural_vad.onset:0.65"
    await run_pipeline(sink, pipecat_service(server, settings=settings, custom_configuration=custom, **options))
    assert " ".join(sink.texts(TranscriptionFrame)) == SAID
    final = next(frame for frame in sink.frames if isinstance(frame, TranscriptionFrame))
    assert final.result.alternatives[0].words


async def test_pipecat_segments(server: Server) -> None:
    service = NvidiaSegmentedSTTService(server=address(server), use_ssl=False, sample_rate=RATE)
    service._initialize_client()
    service._config = service._create_recognition_config()
    frames = [frame async for frame in service.run_stt(WAV.read_bytes())]
    assert [frame.text for frame in frames if isinstance(frame, TranscriptionFrame)] == [SAID]


async def livekit_events(server: Server, **options: Any) -> list[stt.SpeechEvent]:
    service = nvidia.STT(server=address(server), use_ssl=False, **options)
    stream = service.stream()
    for packet in packets():
        stream.push_frame(rtc.AudioFrame(packet, RATE, 1, len(packet) // 2))
    stream.end_input()
    events = [event async for event in stream]
    await stream.aclose()
    return events


async def test_livekit(server: Server) -> None:
    events = await livekit_events(server)
    models = [event.type for event in events]
    assert models[0] is stt.SpeechEventType.START_OF_SPEECH
    finals = [event.alternatives[0] for event in events if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT]
    assert " ".join(final.text for final in finals) == SAID
    assert models.index(stt.SpeechEventType.INTERIM_TRANSCRIPT) < models.index(stt.SpeechEventType.FINAL_TRANSCRIPT)
    for final in finals:
        assert final.words
        assert 0 < final.start_time < final.end_time <= len(PCM) / 2 / RATE
        assert 0 < final.confidence <= 1


async def test_livekit_without_speakers(server: Server) -> None:
    events = await livekit_events(server, enable_diarization=True, max_speaker_count=2, punctuate=False)
    finals = [event.alternatives[0].text for event in events if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT]
    assert " ".join(finals) == SAID


def test_livekit_lists_models(server: Server) -> None:
    """Uses the plugin's own code, which needs a message name that this client no longer exports."""
    riva.client.RivaSpeechRecognitionConfigRequest = theirs.RivaSpeechRecognitionConfigRequest
    service = nvidia.STT(server=address(server), use_ssl=False)
    found = service.log_asr_models(riva.client.ASRService(riva.client.Auth(uri=address(server))))
    assert found == {"en": [{"model": ["tiny-live"]}]}
