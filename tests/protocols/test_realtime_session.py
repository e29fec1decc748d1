"""Session settings: endpointing, audio formats, latency and language."""

from __future__ import annotations

import pytest

from conure.audio.formats import AudioFormat
from conure.engine.plan import ModelInfo
from conure.protocols.realtime.nim import NimSession
from conure.protocols.realtime.session import BadSession, Session, nearest_latency
from conure.protocols.realtime.session_schemas import flat_session_body, session_body, session_changes
from conure.vad.endpointing import Endpointing

MODEL = ModelInfo("live", "live", "", b"", 20, latencies=(80, 160, 560, 1120))


def session_with(**changes: object) -> Session:
    return Session().updated({"audio": {"input": changes}})


@pytest.mark.parametrize(
    ("turn_detection", "has_end_token", "endpointing"),
    [
        (None, True, Endpointing(silence=None, end_token=None, blanks=None, longest=None)),
        ({"type": "server_vad"}, True, Endpointing(silence=0.5, end_token=None)),
        ({"silence_duration_ms": 200, "threshold": 0.8}, False, Endpointing(silence=0.2, end_token=None, speech=0.8)),
        ({"silence_duration_ms": 5000}, False, Endpointing(silence=5.0, end_token=None, blanks=5.0)),
        ({"threshold": 0}, False, Endpointing(silence=0.5, end_token=None, speech=0.01)),
        ({"threshold": 1}, False, Endpointing(silence=0.5, end_token=None, speech=0.99)),
        ({"type": "semantic_vad"}, True, Endpointing(silence=4.0, blanks=4.0)),
        ({"type": "semantic_vad", "eagerness": "low"}, True, Endpointing(silence=8.0, blanks=8.0)),
        ({"type": "semantic_vad", "eagerness": "high"}, True, Endpointing(silence=2.0)),
        ({"type": "semantic_vad", "eagerness": "high"}, False, Endpointing(silence=0.4)),
    ],
)
def test_endpointing_of_turn_detection(
    turn_detection: dict[str, object] | None, has_end_token: bool, endpointing: Endpointing
) -> None:
    assert session_with(turn_detection=turn_detection).endpointing(has_end_token) == endpointing


def test_turn_detection_types_do_not_merge() -> None:
    session = session_with(turn_detection={"type": "server_vad", "threshold": 0.9})
    session = session.updated({"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}})
    session = session.updated({"audio": {"input": {"turn_detection": {"type": "server_vad"}}}})
    assert session == Session()


@pytest.mark.parametrize(
    ("changes", "audio"),
    [
        ({"type": "audio/pcm"}, AudioFormat("pcm16", 24_000)),
        ({"type": "audio/pcm", "rate": 8_000}, AudioFormat("pcm16", 8_000)),
        ({"type": "audio/pcmu"}, AudioFormat("mulaw", 8_000)),
        ({"type": "audio/pcma"}, AudioFormat("alaw", 8_000)),
    ],
)
def test_audio_formats(changes: dict[str, object], audio: AudioFormat) -> None:
    assert session_with(format=changes).audio(b"RIFF") == audio


def test_formats_do_not_merge() -> None:
    session = session_with(format={"type": "audio/pcm", "rate": 16_000})
    assert session.updated({"audio": {"input": {"format": {"type": "audio/pcmu"}}}}).audio(b"").sample_rate == 8_000


@pytest.mark.parametrize(
    ("delay", "latency"), [("minimal", 80), ("low", 160), ("medium", 160), ("high", 560), ("xhigh", 1120), (None, None)]
)
def test_delay_is_the_nearest_latency(delay: str | None, latency: int | None) -> None:
    request = session_with(transcription={"delay": delay}).stream_request(MODEL)
    assert (request.model, request.latency_ms) == ("live", latency)
    assert nearest_latency(MODEL, 10_000) == 1120


@pytest.mark.parametrize(
    ("changes", "language"),
    [
        ({"language": "de"}, "de"),
        ({"languages": ["de"]}, "de"),
        ({"languages": ["de", "en"]}, None),
        ({"languages": []}, None),
        ({"language": None}, None),
    ],
)
def test_several_languages_leave_detection_to_the_model(changes: dict[str, object], language: str | None) -> None:
    assert session_with(transcription=changes).stream_request(MODEL).language == language


def test_fields_without_effect_are_echoed() -> None:
    changes = {"model": "whisper-1", "language": None, "keywords": ["Kowalczyk"], "prompt": "numbers"}
    session = session_with(transcription=changes, noise_reduction={"type": "near_field", "strength": 0.5})
    body = session_body(session, "sess_1")["audio"]["input"]
    assert body["transcription"] == changes
    assert body["noise_reduction"] == {"type": "near_field", "strength": 0.5}
    assert session_with(transcription=None).common.input.transcription.model is None


def test_both_session_formats_are_equivalent() -> None:
    flat = {
        "input_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "whisper-1", "language": "en"},
        "turn_detection": None,
        "input_audio_noise_reduction": None,
        "include": ["item.input_audio_transcription.logprobs"],
    }
    session = Session().updated(session_changes(flat))
    body = flat_session_body(session, "sess_1")
    assert {name: body[name] for name in flat} == flat
    assert Session().updated(session_changes(session_body(session, "sess_1"))) == session


def test_invalid_value_is_named() -> None:
    with pytest.raises(BadSession, match="silence_duration_ms") as wrong:
        session_with(turn_detection={"silence_duration_ms": 0})
    assert wrong.value.param == "session.audio.input.turn_detection.silence_duration_ms"


def test_endpointing_of_nim() -> None:
    session = NimSession().updated({"endpointing_config": {"stop_history": 800, "stop_history_eou": 240}})
    assert session.endpointing(has_end_token=True) == Endpointing(silence=0.8, end_token=0.24)
    zeros = NimSession().updated({"endpointing_config": {"stop_history": 0, "start_history": 0}})
    assert zeros.endpointing(has_end_token=True) == Endpointing()


WAV_HEAD = b"RIFF\0\0\0\0WAVEfmt "


@pytest.mark.parametrize(
    ("name", "head", "encoding"),
    [("none", WAV_HEAD, "container"), ("none", b"\0\0\0\0", "pcm16"), ("pcm16", WAV_HEAD, "pcm16")],
)
def test_nim_files_are_detected(name: str, head: bytes, encoding: str) -> None:
    assert NimSession().updated({"input_audio_format": name}).audio(head).encoding == encoding
