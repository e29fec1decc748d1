"""A Riva client that uses our generated messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from conure.protocols.riva.riva_asr_pb2 import (
    RecognitionConfig,
    RecognizeRequest,
    RecognizeResponse,
    RivaSpeechRecognitionConfigRequest,
    RivaSpeechRecognitionConfigResponse,
    StreamingRecognitionConfig,
    StreamingRecognitionResult,
    StreamingRecognizeRequest,
    StreamingRecognizeResponse,
)
from conure.protocols.riva.riva_audio_pb2 import AudioEncoding
from tests.protocols.servers import PATIENCE, Server

__all__ = ["FORCE", "PCM", "Riva", "audio", "calling", "configured", "finals", "interims", "identity"]

SERVICE = "/nvidia.riva.asr.RivaSpeechRecognition/"
PCM = RecognitionConfig(encoding=AudioEncoding.LINEAR_PCM, sample_rate_hertz=16_000, model="tiny")
FORCE = StreamingRecognizeRequest(runtime_config={"force_eou": "true"})


def identity(data: bytes) -> bytes:
    """Serializer for raw bytes."""
    return data


class Riva:
    """The calls of the service, over a channel of `grpc` or `grpc.aio`."""

    def __init__(self, channel: Any) -> None:
        self.recognize = channel.unary_unary(
            SERVICE + "Recognize", RecognizeRequest.SerializeToString, RecognizeResponse.FromString
        )
        self.models = channel.unary_unary(
            SERVICE + "GetRivaSpeechRecognitionConfig",
            RivaSpeechRecognitionConfigRequest.SerializeToString,
            RivaSpeechRecognitionConfigResponse.FromString,
        )
        self.stream = channel.stream_stream(
            SERVICE + "StreamingRecognize",
            StreamingRecognizeRequest.SerializeToString,
            StreamingRecognizeResponse.FromString,
        )
        self.raw_recognize = channel.unary_unary(SERVICE + "Recognize", identity, identity)
        self.raw_stream = channel.stream_stream(SERVICE + "StreamingRecognize", identity, identity)

    def transcribe_stream(
        self, requests: Iterable[StreamingRecognizeRequest], **options: Any
    ) -> list[StreamingRecognitionResult]:
        """Sends the requests and returns all results."""
        responses = self.stream(iter(requests), timeout=PATIENCE, **options)
        return [result for response in responses for result in response.results]


@contextmanager
def calling(server: Server) -> Iterator[Riva]:
    with grpc.insecure_channel(f"{server.host}:{server.ports['grpc']}") as channel:
        yield Riva(channel)


def configured(config: RecognitionConfig = PCM, interim: bool = True) -> StreamingRecognizeRequest:
    return StreamingRecognizeRequest(
        streaming_config=StreamingRecognitionConfig(config=config, interim_results=interim)
    )


def audio(data: bytes) -> StreamingRecognizeRequest:
    return StreamingRecognizeRequest(audio_content=data)


def finals(results: Iterable[StreamingRecognitionResult]) -> list[str]:
    return [result.alternatives[0].transcript for result in results if result.is_final]


def interims(results: Iterable[StreamingRecognitionResult]) -> list[str]:
    return [result.alternatives[0].transcript for result in results if not result.is_final]
