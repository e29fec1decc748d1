"""Conversion of Riva's configuration to options."""

from __future__ import annotations

from typing import Any, cast

import pytest

from conure.audio.formats import AudioFormat
from conure.engine.client import EngineClient
from conure.errors import BadOption
from conure.protocols.riva.options import parse_audio, parse_options
from conure.protocols.riva.riva_asr_pb2 import (
    EndpointingConfig,
    RecognitionConfig,
    SpeakerDiarizationConfig,
    SpeechContext,
)
from conure.protocols.riva.riva_audio_pb2 import AudioEncoding
from conure.service.model_directory import ModelDirectory
from conure.vad.endpointing import Endpointing
from tests.service.fake_engine import Engine

MODELS = ModelDirectory(cast(EngineClient, Engine()), ["live"], ["clips"])
WAV = b"RIFF\x00\x00\x00\x00WAVEfmt "


def parse(**fields: Any) -> Any:
    return parse_options(RecognitionConfig(**fields), MODELS)


def test_defaults() -> None:
    options = parse()
    assert options.stream_request.model is options.stream_request.language is None
    assert options.endpointing == Endpointing()
    assert (options.second_pass, options.channels, options.ignored) == (0, 1, ())


@pytest.mark.parametrize(
    ("name", "expected"), [("live", "live"), ("tiny", "tiny"), ("", None), ("conformer-en-US", None)]
)
def test_unknown_model_names_select_the_default(name: str, expected: str | None) -> None:
    assert parse(model=name).model == expected


@pytest.mark.parametrize(("code", "expected"), [("", None), ("multi", None), ("AUTO", None), ("de-DE", "de-DE")])
def test_languages(code: str, expected: str | None) -> None:
    assert parse(language_code=code).language == expected


@pytest.mark.parametrize(
    ("values", "silence", "second_pass"),
    [
        ({"stop_history": 800}, 0.8, 0.0),
        ({"stop_history": 800, "stop_history_eou": 240}, 0.24, 0.56),
        ({"stop_history_eou": 200}, 0.2, 0.4),
        ({"stop_history": 300, "stop_history_eou": 900}, 0.3, 0.0),
    ],
)
@pytest.mark.parametrize("section", ["endpointing_config", "custom_configuration"])
def test_end_of_utterance_settings(section: str, values: dict[str, int], silence: float, second_pass: float) -> None:
    message = (
        EndpointingConfig(**values)
        if section == "endpointing_config"
        else {name: str(value) for name, value in values.items()}
    )  # type: ignore[arg-type]
    options = parse(**{section: message})
    assert options.endpointing.silence == silence
    assert options.second_pass == second_pass
    assert options.ignored == ()


def test_long_silence_raises_the_blank_limit() -> None:
    endpointing = parse(endpointing_config=EndpointingConfig(stop_history=5000)).endpointing
    assert (endpointing.silence, endpointing.blanks, endpointing.end_token) == (5, 5, None)


def test_start_of_utterance_settings() -> None:
    values = EndpointingConfig(start_history=300, start_threshold=0.5)
    options = parse(endpointing_config=values, custom_configuration={"neural_vad.onset": "0.65"})
    assert options.endpointing.begin_seconds == pytest.approx(0.15)
    assert options.endpointing.speech == 0.65


def test_ignored_options_are_reported() -> None:
    options = parse(
        max_alternatives=3,
        profanity_filter=True,
        speech_contexts=[SpeechContext(phrases=["conure"], boost=4)],
        diarization_config=SpeakerDiarizationConfig(enable_speaker_diarization=True),
        endpointing_config=EndpointingConfig(stop_threshold=0.9),
        custom_configuration={"enable_vad_endpointing": "true", "colour": "green"},
    )
    assert options.ignored == (
        *("max_alternatives", "profanity_filter", "speech_contexts", "diarization_config", "stop_threshold"),
        "custom_configuration.colour",
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"endpointing_config": EndpointingConfig(stop_history=-1)},
        {"endpointing_config": EndpointingConfig(stop_history=0)},
        {"endpointing_config": EndpointingConfig(start_threshold=1.5)},
        {"endpointing_config": EndpointingConfig(stop_threshold=float("nan"))},
        {"custom_configuration": {"stop_history": "soon"}},
        {"custom_configuration": {"neural_vad.onset": "2"}},
        {"max_alternatives": -1},
        {"audio_channel_count": -2},
    ],
)
def test_invalid_values(fields: dict[str, Any]) -> None:
    with pytest.raises(BadOption) as raised:
        parse(**fields)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("encoding", "head", "audio"),
    [
        (AudioEncoding.LINEAR_PCM, b"", AudioFormat("pcm16", 8000, 2)),
        (AudioEncoding.LINEAR_PCM, b"OggS\0\2" + bytes(10), AudioFormat("container", channels=2)),
        (AudioEncoding.LINEAR_PCM, WAV, AudioFormat("container", channels=2)),
        (AudioEncoding.MULAW, b"", AudioFormat("mulaw", 8000, 2)),
        (AudioEncoding.ALAW, b"", AudioFormat("alaw", 8000, 2)),
        (AudioEncoding.FLAC, b"", AudioFormat("container", channels=2)),
        (AudioEncoding.OGGOPUS, b"", AudioFormat("container", channels=2)),
        (AudioEncoding.ENCODING_UNSPECIFIED, b"\x00" * 12, AudioFormat("pcm16", 8000, 2)),
        (AudioEncoding.ENCODING_UNSPECIFIED, WAV, AudioFormat("container", channels=2)),
        (AudioEncoding.ENCODING_UNSPECIFIED, b"fLaC" + bytes(8), AudioFormat("container", channels=2)),
        (AudioEncoding.ENCODING_UNSPECIFIED, b"\0\0\0 ftypM4A ", AudioFormat("container", channels=2)),
    ],
)
def test_audio(encoding: AudioEncoding, head: bytes, audio: AudioFormat) -> None:
    config = RecognitionConfig(encoding=encoding, sample_rate_hertz=8000, audio_channel_count=2)
    assert parse_audio(config, head) == audio


@pytest.mark.parametrize(
    "fields",
    [
        {"encoding": 7},
        {"encoding": AudioEncoding.LINEAR_PCM, "sample_rate_hertz": 4000},
        {"encoding": AudioEncoding.MULAW, "sample_rate_hertz": 96_000},
        {"audio_channel_count": 99},
    ],
)
def test_unsupported_audio(fields: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        parse_audio(RecognitionConfig(**fields))
