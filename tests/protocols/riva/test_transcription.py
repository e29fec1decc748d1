"""Speech through the gRPC port of a real server."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import grpc
import numpy as np
import pytest

from conure.protocols.riva.riva_asr_pb2 import (
    EndpointingConfig,
    RecognitionConfig,
    RecognizeRequest,
    RivaSpeechRecognitionConfigRequest,
    StreamingRecognizeRequest,
)
from conure.protocols.riva.riva_audio_pb2 import AudioEncoding
from tests.audio.recordings import encode
from tests.protocols.live_clients import pcm16, pieces
from tests.protocols.riva.calling import FORCE, PCM, Riva, audio, calling, configured, finals, interims
from tests.protocols.servers import PATIENCE, QUIET, SAID, Server, demo

DIGITS = pcm16(demo())
FIRST, SECOND = SAID.split()[:4], SAID.split()[4:]
AUDIO: dict[str, tuple[AudioEncoding, int]] = {
    "pcm 16 kHz": (AudioEncoding.LINEAR_PCM, 16_000),
    "pcm 8 kHz": (AudioEncoding.LINEAR_PCM, 8_000),
    "pcm 44.1 kHz": (AudioEncoding.LINEAR_PCM, 44_100),
    "pcm 48 kHz": (AudioEncoding.LINEAR_PCM, 48_000),
    "bare pcm": (AudioEncoding.ENCODING_UNSPECIFIED, 16_000),
    "mulaw": (AudioEncoding.MULAW, 8_000),
    "alaw": (AudioEncoding.ALAW, 8_000),
    "flac": (AudioEncoding.FLAC, 16_000),
    "ogg": (AudioEncoding.OGGOPUS, 48_000),
    "wav": (AudioEncoding.ENCODING_UNSPECIFIED, 22_050),
    "wav as pcm": (AudioEncoding.LINEAR_PCM, 16_000),
    "any flac": (AudioEncoding.ENCODING_UNSPECIFIED, 16_000),
}
FORMATS = {
    "pcm": ("s16le", "pcm_s16le"),
    "mulaw": ("mulaw", "pcm_mulaw"),
    "alaw": ("alaw", "pcm_alaw"),
    "flac": ("flac", "flac"),
    "ogg": ("ogg", "libopus"),
    "wav": ("wav", "pcm_s16le"),
}


@cache
def encoded(name: str) -> bytes:
    rate = AUDIO[name][1]
    format_ = next(format_ for format_ in FORMATS if format_ in name and not (format_ == "pcm" and "wav" in name))
    container, codec = FORMATS[format_]
    return encode(demo(rate)[None], rate, container, codec)


def config_of(name: str, **fields: object) -> RecognitionConfig:
    encoding, rate = AUDIO[name]
    return RecognitionConfig(encoding=encoding, sample_rate_hertz=rate, model="tiny", **fields)  # type: ignore[arg-type]


@pytest.fixture
def riva(server: Server) -> Iterator[Riva]:
    with calling(server) as client:
        yield client
    server.settled(0)


def joined(texts: list[str]) -> str:
    return " ".join(filter(None, texts))


@pytest.mark.parametrize("name", AUDIO)
def test_recording(riva: Riva, name: str) -> None:
    request = RecognizeRequest(config=config_of(name, enable_word_time_offsets=True), audio=encoded(name))
    (result,) = riva.recognize(request, timeout=PATIENCE).results
    assert result.alternatives[0].transcript == SAID
    assert result.audio_processed == pytest.approx(len(DIGITS) / 32_000, abs=0.1)
    words = result.alternatives[0].words
    assert [word.word for word in words] == SAID.split()
    times = [time for word in words for time in (word.start_time, word.end_time)]
    assert times == sorted(times)
    assert 0 < times[-1] <= len(DIGITS) / 32


@pytest.mark.parametrize("name", AUDIO)
def test_stream(riva: Riva, name: str) -> None:
    requests = [configured(config_of(name)), *(audio(piece) for piece in pieces(encoded(name)))]
    results = riva.transcribe_stream(requests)
    assert joined(finals(results)) == SAID
    assert not results[0].is_final


def test_packets_of_any_size(riva: Riva) -> None:
    odd = [audio(DIGITS[:1]), audio(b""), audio(DIGITS[1:5]), audio(DIGITS[5:4321]), audio(DIGITS[4321:])]
    assert joined(finals(riva.transcribe_stream([configured(), *odd]))) == SAID


def test_interims_grow_until_their_final(riva: Riva) -> None:
    """Interims show the utterance from its start, and utterances do not overlap."""
    config = RecognitionConfig(enable_word_time_offsets=True)
    config.MergeFrom(PCM)
    results = riva.transcribe_stream([configured(config), *(audio(piece) for piece in pieces(DIGITS))])
    end, has_interim = 0, False
    for result in results:
        assert result.channel_tag == 1
        if not result.is_final:
            assert 0 <= result.stability < 1
            assert not result.alternatives[0].words
            has_interim = True
            continue
        assert has_interim
        words = result.alternatives[0].words
        assert result.alternatives[0].transcript.split() == [word.word for word in words]
        for word in words:
            assert end <= word.start_time <= word.end_time
            end = word.end_time
        assert end <= result.audio_processed * 1000 + 100
        has_interim = False
    assert not has_interim
    processed = [result.audio_processed for result in results]
    assert processed == sorted(processed)


def test_finals_only(riva: Riva) -> None:
    results = riva.transcribe_stream([configured(interim=False), *(audio(piece) for piece in pieces(DIGITS))])
    assert interims(results) == []
    assert joined(finals(results)) == SAID


def test_long_silence_limit_gives_one_utterance(riva: Riva) -> None:
    config = RecognitionConfig(endpointing_config=EndpointingConfig(stop_history=3000))
    config.MergeFrom(PCM)
    assert finals(riva.transcribe_stream([configured(config), *(audio(piece) for piece in pieces(DIGITS))])) == [SAID]


def test_two_passes_end_in_one_final(riva: Riva) -> None:
    endpointing = EndpointingConfig(stop_history=2500, stop_history_eou=200)
    config = RecognitionConfig(endpointing_config=endpointing)
    config.MergeFrom(PCM)
    results = riva.transcribe_stream([configured(config), *(audio(piece) for piece in pieces(DIGITS))])
    first = [result for result in results if result.stability == 1 and not result.is_final]
    assert len(first) > 1
    assert [result.is_final for result in results].count(True) == 1
    texts = [result.alternatives[0].transcript for result in first]
    assert all(current.startswith(previous) for previous, current in pairwise(texts))
    assert results[-1].alternatives[0].transcript.startswith(texts[-1])


def test_forced_final(riva: Riva) -> None:
    """The answer covers all audio before the request, including that of the request itself."""
    config = RecognitionConfig(endpointing_config=EndpointingConfig(stop_history=3000))
    config.MergeFrom(PCM)
    first, rest = DIGITS[: 2 * QUIET], DIGITS[2 * QUIET :]
    force_request = StreamingRecognizeRequest(audio_content=first[-3200:], runtime_config={"force_eou": "true"})
    requests = [
        configured(config),
        audio(first[:-3200]),
        force_request,
        *(audio(piece) for piece in pieces(rest)),
        FORCE,
        FORCE,
    ]
    transcripts = finals(riva.transcribe_stream(requests))
    assert transcripts == [" ".join(FIRST), " ".join(SECOND), ""]


def test_channels_are_transcribed_separately(riva: Riva) -> None:
    silent = np.zeros(len(DIGITS) // 2, "<i2")
    stereo = np.stack([silent, np.frombuffer(DIGITS, "<i2")], axis=1).tobytes()
    config = RecognitionConfig(
        audio_channel_count=2,
        enable_separate_recognition_per_channel=True,
        endpointing_config=EndpointingConfig(stop_history=3000),
    )
    config.MergeFrom(PCM)
    results = riva.transcribe_stream([configured(config), *(audio(piece) for piece in pieces(stereo))])
    by_channel = {tag: joined(finals(result for result in results if result.channel_tag == tag)) for tag in (1, 2)}
    assert by_channel == {1: "", 2: SAID}
    whole = riva.recognize(RecognizeRequest(config=config, audio=stereo), timeout=PATIENCE).results
    assert [(result.channel_tag, result.alternatives[0].transcript) for result in whole] == [(1, ""), (2, SAID)]


def test_channels_are_mixed(riva: Riva) -> None:
    stereo = np.repeat(np.frombuffer(DIGITS, "<i2"), 2).tobytes()
    config = RecognitionConfig(audio_channel_count=2)
    config.MergeFrom(PCM)
    assert joined(finals(riva.transcribe_stream([configured(config), audio(stereo)]))) == SAID
    (result,) = riva.recognize(RecognizeRequest(config=config, audio=stereo), timeout=PATIENCE).results
    assert result.alternatives[0].transcript == SAID


def test_languages(riva: Riva) -> None:
    for code in ("en-US", "en", "multi", "auto", ""):
        config = RecognitionConfig(language_code=code)
        config.MergeFrom(PCM)
        (result,) = riva.recognize(RecognizeRequest(config=config, audio=DIGITS), timeout=PATIENCE).results
        assert result.alternatives[0].transcript == SAID
        expected = code if code == "en-US" else "en"  # the model has no other
        assert list(result.alternatives[0].language_code) == [expected]
        results = riva.transcribe_stream([configured(config), *(audio(piece) for piece in pieces(DIGITS))])
        assert {tuple(final.alternatives[0].language_code) for final in results if final.is_final} == {(expected,)}


def test_unsupported_languages(riva: Riva) -> None:
    config = RecognitionConfig(language_code="tlh")
    config.MergeFrom(PCM)
    with pytest.raises(grpc.RpcError) as recognized:
        riva.recognize(RecognizeRequest(config=config, audio=DIGITS), timeout=PATIENCE)
    with pytest.raises(grpc.RpcError) as streamed:
        riva.transcribe_stream([configured(config)])
    for raised in (recognized, streamed):
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "'tlh'" in raised.value.details()
        assert "it knows: en" in raised.value.details()


@pytest.mark.parametrize("data", [b"", b"fLaC" + bytes(100), b"OggS" * 100])
def test_invalid_audio(riva: Riva, data: bytes) -> None:
    config = RecognitionConfig(encoding=AudioEncoding.FLAC, model="tiny")
    with pytest.raises(grpc.RpcError) as raised:
        riva.recognize(RecognizeRequest(config=config, audio=data), timeout=PATIENCE)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    if not data:
        return
    with pytest.raises(grpc.RpcError) as raised:
        riva.transcribe_stream([configured(config), audio(data), audio(bytes(100_000))])
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_audio_without_samples(riva: Riva) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        riva.recognize(RecognizeRequest(config=PCM), timeout=PATIENCE)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_truncated_audio_is_reported(riva: Riva) -> None:
    config = RecognitionConfig(encoding=AudioEncoding.FLAC, model="tiny")
    whole = encoded("flac")
    _, call = riva.recognize.with_call(
        RecognizeRequest(config=config, audio=whole[: len(whole) // 2]), timeout=PATIENCE
    )
    assert dict(call.trailing_metadata())["conure-problems"]


def test_models(riva: Riva, server: Server) -> None:
    models = riva.models(RivaSpeechRecognitionConfigRequest(), timeout=PATIENCE).model_config
    types = {(config.model_name, config.parameters["type"]) for config in models}
    assert {("small", "online"), ("tiny", "online"), ("tiny", "offline")} <= types
    tiny = riva.models(RivaSpeechRecognitionConfigRequest(model_name="tiny"), timeout=PATIENCE).model_config
    assert {config.model_name for config in tiny} == {"tiny"}
    assert {config.parameters["language_code"] for config in tiny} == {"en"}


def test_many_clients_connect_and_disconnect(riva: Riva, server: Server) -> None:
    """Clients that cancel in the middle of a stream leave no streams."""
    riva.transcribe_stream([configured(), audio(DIGITS)])
    server.settled(0)
    for _ in range(20):
        call = riva.stream(iter([configured(), audio(DIGITS[:64_000])]), timeout=PATIENCE)
        next(call)
        call.cancel()
    server.settled(0)
    assert joined(finals(riva.transcribe_stream([configured(), audio(DIGITS)]))) == SAID
