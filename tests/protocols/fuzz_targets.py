"""Whatever takes bytes from strangers, with what a good client says to it.

A new door is a line in TARGETS. A test fails where the door of a target is not there.
"""

from __future__ import annotations

import base64
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from bench.visits import upgrade
from tests.protocols.mutations import Said
from tests.protocols.servers import DEMO, ROOT
from tests.protocols.wires import (
    Wire,
    form,
    grpc_frame,
    grpc_opening,
    json_line,
    raw_body,
    websocket_frame,
    wyoming_event,
)

__all__ = ["TARGETS", "Target"]

WAV = ROOT / "tests" / "conformance" / "speech.wav"
FLAC = DEMO.read_bytes()
SWITCHED_OFF: Any = None

with wave.open(str(WAV)) as _file:
    PCM = _file.readframes(_file.getnframes())


@dataclass(frozen=True)
class Target:
    name: str
    port: str
    """Its name among the server's."""
    wire: Wire
    talk: Callable[[Random], list[Said]]
    """What a good client says, from the first message to the last."""
    answer: bytes
    """Is in what a good client hears."""
    opening: bytes = b""
    """Comes before all messages."""

    @property
    def is_socket(self) -> bool:
        """It is a WebSocket."""
        return self.port == "web" and bool(self.opening)


def sound(chance: Random, rate: int = 16_000) -> list[bytes]:
    """Up to two seconds of speech, in packets of one size."""
    begin = 2 * chance.randrange(len(PCM) // 4)
    size = 2 * rate * chance.choice((20, 100, 250)) // 1000
    return [PCM[at : at + size] for at in range(begin, begin + chance.randint(1, 8) * size, size)]


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def native(chance: Random, packed: bool = False) -> list[Said]:
    config: dict[str, Any] = {"type": "config", "events": True, "model": "tiny", "language": "en", "words": True}
    config |= chance.choice(
        (
            {},
            {"endpointing": {"silence": 0.5, "blanks": SWITCHED_OFF}},
            {"finals": {"model": "tiny"}},
            {"latency_ms": 160},
        )
    )
    begin = {"type": "hello", "sample_rate": 16_000, "encoding": "pcm16", "channels": 1, "stream_id": 1}
    audio = [{"type": "audio", "data": data if packed else encoded(data), "final": False} for data in sound(chance)]
    numbers = {"type": "audio", "samples": [0.1, -0.1], "encoding": "pcm16"}
    asides: list[Said] = [
        {"type": "finalize", "id": 7}, {"type": "ping", "id": 1}, {"type": "resume", "token": "x" * 22, "seq": 0},
        {"type": "config", "endpointing": {"silence": 0.9, "longest": 20}}, numbers,
    ]  # fmt: skip
    end = {"type": chance.choice(("close", "close", "cancel"))}
    return [begin, config, *audio[:2], chance.choice(asides), *audio[2:], {"type": "finalize", "id": 1}, end]


def native_packed(chance: Random) -> list[Said]:
    return native(chance, packed=True)


def native_bytes(chance: Random) -> list[Said]:
    """Binary audio between texts."""
    config = {
        "type": "config",
        "model": "tiny",
        "encoding": chance.choice(("pcm16", "f32", "mulaw", "ogg", "container")),
    }
    return [config, *sound(chance), '{"type": "ping"}\n{"type": "finalize"}', *sound(chance), {"type": "close"}]


def marker(chance: Random) -> list[Said]:
    packed: list[Said] = [{"type": "Audio", "pcm_bytes": data} for data in sound(chance)]
    plain: list[Said] = list(sound(chance))
    return [*chance.choice((packed, plain)), chance.choice(("END", "MARKER")), {"type": "Marker"}]


def listening(chance: Random) -> list[Said]:
    configure = {"type": "Configure", "keyterms": ["seven"], "features": {"numerals": True}}
    asides: list[Said] = [configure, {"type": "KeepAlive"}, {"type": "Finalize"}, b""]
    return [*sound(chance), chance.choice(asides), *sound(chance), {"type": "Finalize"}, {"type": "CloseStream"}]


def listening_to_a_file(chance: Random) -> list[Said]:
    size = chance.choice((4_000, 16_000))
    return [*(FLAC[at : at + size] for at in range(0, len(FLAC), size)), {"type": "CloseStream"}]


def turns(chance: Random) -> list[Said]:
    thresholds = {"eot_threshold": 0.7, "eager_eot_threshold": 0.4, "eot_timeout_ms": 3000}
    configure = {"type": "Configure", "thresholds": thresholds, "keyterms": ["seven"], "language_hints": ["en"]}
    return [*sound(chance), configure, *sound(chance), {"type": "ForceEndTurn"}, {"type": "CloseStream"}]


def realtime(chance: Random) -> list[Said]:
    detection = chance.choice((None, {"type": "server_vad", "silence_duration_ms": 300}, {"type": "semantic_vad"}))
    heard = {
        "format": {"type": "audio/pcm", "rate": 24_000}, "turn_detection": detection,
        "transcription": {"model": "whisper-1", "language": "en", "delay": "low"},
    }  # fmt: skip
    update = {
        "type": "session.update",
        "event_id": "1",
        "session": {"type": "transcription", "audio": {"input": heard}},
    }
    beta = {"input_audio_format": "pcm16", "turn_detection": detection, "input_audio_transcription": {"model": "x"}}
    older = {"type": "transcription_session.update", "session": beta}
    appended = [{"type": "input_audio_buffer.append", "audio": encoded(data)} for data in sound(chance, 24_000)]
    end = chance.choice(("commit", "clear", "done"))
    response: list[Said] = [{"type": "response.create", "response": {"modalities": ["text"]}}]
    return [chance.choice((update, older)), *appended, {"type": f"input_audio_buffer.{end}"}, *response]


def segments(chance: Random) -> list[Said]:
    return [*sound(chance), *sound(chance), "finalize"]


def wyoming(chance: Random) -> list[Said]:
    form_of = {"rate": 16_000, "width": 2, "channels": 1}
    chunks = [{"type": "audio-chunk", "data": form_of, "payload": data} for data in sound(chance)]
    begin = [{"type": "describe"}, {"type": "transcribe", "data": {"language": "en", "name": "tiny"}}]
    return [*begin, {"type": "audio-start", "data": form_of}, *chunks, {"type": "audio-stop"}, {"type": "ping"}]


def recording(chance: Random) -> list[Said]:
    return [chance.choice((FLAC, WAV.read_bytes()[: 44 + 64_000]))]


def openai_form(chance: Random) -> list[Said]:
    asked: tuple[dict[str, str], ...] = (
        {"response_format": "json", "include[]": "logprobs"},
        {"response_format": "verbose_json", "timestamp_granularities[]": "word"},
        {"response_format": "text", "stream": "true"},
        {"response_format": "srt"},
        {"response_format": "vtt", "chunking_strategy": "auto"},
    )
    return [{"file": FLAC, "model": "whisper-1", "temperature": "0.2", "language": "en"} | chance.choice(asked)]


def plain_form(chance: Random) -> list[Said]:
    return [{"file": FLAC, "language": "en", "num_speakers": "2"}]


def remote(chance: Random) -> list[Said]:
    """Addresses that nobody may be asked for."""
    hosts = ("127.0.0.1:1", "169.254.169.254", "[::1]", "0.0.0.0", "localhost", "127.1", "2130706433", "x.invalid")
    return [{"url": f"http://{chance.choice(hosts)}/a.wav"}]


def secrets(chance: Random) -> list[Said]:
    session = {"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
    return [{"expires_after": {"anchor": "created_at", "seconds": 60}, "session": session}]


def riva_config(rate: int) -> bytes:
    """A `RecognitionConfig`: PCM, a rate, en-US, word times, punctuation."""
    return b"\x08\x01\x10" + _varint(rate) + b"\x1a\x05en-US" + b"\x40\x01\x58\x01"


def riva_stream(chance: Random) -> list[Said]:
    config = _field(1, riva_config(16_000)) + b"\x10\x01"
    return [_field(1, config), *(_field(2, data) for data in sound(chance)), b""]


def riva_batch(chance: Random) -> list[Said]:
    return [_field(1, riva_config(16_000)) + _field(2, b"".join(sound(chance))[:16_000]), b""]


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def _targets() -> Iterator[Target]:
    json_frames = websocket_frame()
    packed_frames = websocket_frame(packed=True)
    live = "encoding=linear16&sample_rate=16000"
    sockets = [
        ("native", "/v1/stream", json_frames, native, b'"ready"'),
        ("native, msgpack", "/v1/stream?format=msgpack", packed_frames, native_packed, b"ready"),
        ("native, binary", "/v1/stream?events=true&model=tiny", json_frames, native_bytes, b'"ready"'),
        ("marker", "/ws", packed_frames, marker, b'"Ready"'),
        ("deepgram", f"/v1/listen?{live}&interim_results=true", json_frames, listening, b'"Metadata"'),
        (
            "deepgram, any",
            "/v1/listen?model=nova-3",
            json_frames,
            listening_to_a_file,
            b'"Metadata"',
        ),
        ("deepgram, turns", f"/v2/listen?model=flux-general-en&{live}", json_frames, turns, b'"Connected"'),
        ("realtime", "/v1/realtime?intent=transcription", json_frames, realtime, b"session.created"),
        ("segments", "/v3/stream?sample_rate=16000", json_frames, segments, b'"ready"'),
    ]
    for name, path, wire, talk, answer in sockets:
        yield Target(name, "web", wire, talk, answer, upgrade(path))
    calls = [("riva, stream", "StreamingRecognize", riva_stream), ("riva, batch", "Recognize", riva_batch)]
    for name, method, talk in calls:
        opening = grpc_opening(f"/nvidia.riva.asr.RivaSpeechRecognition/{method}")
        yield Target(name, "grpc", grpc_frame, talk, b"\x01\x04\x00\x00\x00\x01\x88", opening)  # head of an answer: 200
    yield Target("lines", "tcp", json_line, native, b'"ready"')
    yield Target("wyoming", "wyoming", wyoming_event, wyoming, b'"transcript"')
    requests = [
        ("recording", raw_body("/v1/transcribe?model=tiny"), recording, b'"text"'),
        ("openai", form("/v1/audio/transcriptions"), openai_form, b"200 OK"),
        ("openai, translation", form("/v1/audio/translations"), openai_form, b'"error"'),
        ("deepgram, recording", raw_body("/v1/listen?utterances=true&paragraphs=true"), recording, b'"results"'),
        ("deepgram, address", raw_body("/v1/listen", "application/json"), remote, b'"err_code"'),
        ("realtime, secret", raw_body("/v1/realtime/client_secrets", "application/json"), secrets, b"200 OK"),
        ("segments, recording", form("/v1/transcribe"), plain_form, b'"text"'),
        ("segments, v2", form("/v2/transcribe"), plain_form, b'"text"'),
    ]
    for name, wire, talk, answer in requests:
        yield Target(name, "web", wire, talk, answer)


TARGETS = {target.name: target for target in _targets()}
