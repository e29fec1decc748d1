"""Everything that accepts bytes from clients, with valid messages for each.

A new endpoint needs a line in `_targets`. A test fails if a target is not served.
"""

from __future__ import annotations

import base64
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from bench.visits import upgrade
from tests.protocols.mutations import Message
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
    """Name of the port."""
    wire: Wire
    messages: Callable[[Random], list[Message]]
    """All valid messages of one connection."""
    answer: bytes
    """Part of the server's response to them."""
    opening: bytes = b""
    """Sent before the messages."""

    @property
    def is_socket(self) -> bool:
        """Whether it is a WebSocket."""
        return self.port == "web" and bool(self.opening)


def packets(rng: Random, rate: int = 16_000) -> list[bytes]:
    """Up to two seconds of speech in packets of equal size."""
    begin = 2 * rng.randrange(len(PCM) // 4)
    size = 2 * rate * rng.choice((20, 100, 250)) // 1000
    return [PCM[at : at + size] for at in range(begin, begin + rng.randint(1, 8) * size, size)]


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def native(rng: Random, packed: bool = False) -> list[Message]:
    config: dict[str, Any] = {"type": "config", "events": True, "model": "tiny", "language": "en", "words": True}
    config |= rng.choice(
        (
            {},
            {"endpointing": {"silence": 0.5, "blanks": SWITCHED_OFF}},
            {"finals": {"model": "tiny"}},
            {"latency_ms": 160},
        )
    )
    begin = {"type": "hello", "sample_rate": 16_000, "encoding": "pcm16", "channels": 1, "stream_id": 1}
    audio = [{"type": "audio", "data": data if packed else encoded(data), "final": False} for data in packets(rng)]
    numbers = {"type": "audio", "samples": [0.1, -0.1], "encoding": "pcm16"}
    optional: list[Message] = [
        {"type": "finalize", "id": 7}, {"type": "ping", "id": 1}, {"type": "resume", "token": "x" * 22, "seq": 0},
        {"type": "config", "endpointing": {"silence": 0.9, "longest": 20}}, numbers,
    ]  # fmt: skip
    end = {"type": rng.choice(("close", "close", "cancel"))}
    return [begin, config, *audio[:2], rng.choice(optional), *audio[2:], {"type": "finalize", "id": 1}, end]


def native_packed(rng: Random) -> list[Message]:
    return native(rng, packed=True)


def native_bytes(rng: Random) -> list[Message]:
    """Binary audio between text messages."""
    config = {
        "type": "config",
        "model": "tiny",
        "encoding": rng.choice(("pcm16", "f32", "mulaw", "ogg", "container")),
    }
    return [config, *packets(rng), '{"type": "ping"}\n{"type": "finalize"}', *packets(rng), {"type": "close"}]


def marker(rng: Random) -> list[Message]:
    packed: list[Message] = [{"type": "Audio", "pcm_bytes": data} for data in packets(rng)]
    plain: list[Message] = list(packets(rng))
    return [*rng.choice((packed, plain)), rng.choice(("END", "MARKER")), {"type": "Marker"}]


def deepgram_live(rng: Random) -> list[Message]:
    configure = {"type": "Configure", "keyterms": ["seven"], "features": {"numerals": True}}
    optional: list[Message] = [configure, {"type": "KeepAlive"}, {"type": "Finalize"}, b""]
    return [*packets(rng), rng.choice(optional), *packets(rng), {"type": "Finalize"}, {"type": "CloseStream"}]


def deepgram_live_file(rng: Random) -> list[Message]:
    size = rng.choice((4_000, 16_000))
    return [*(FLAC[at : at + size] for at in range(0, len(FLAC), size)), {"type": "CloseStream"}]


def deepgram_turns(rng: Random) -> list[Message]:
    thresholds = {"eot_threshold": 0.7, "eager_eot_threshold": 0.4, "eot_timeout_ms": 3000}
    configure = {"type": "Configure", "thresholds": thresholds, "keyterms": ["seven"], "language_hints": ["en"]}
    return [*packets(rng), configure, *packets(rng), {"type": "ForceEndTurn"}, {"type": "CloseStream"}]


def realtime(rng: Random) -> list[Message]:
    detection = rng.choice((None, {"type": "server_vad", "silence_duration_ms": 300}, {"type": "semantic_vad"}))
    audio_input = {
        "format": {"type": "audio/pcm", "rate": 24_000}, "turn_detection": detection,
        "transcription": {"model": "whisper-1", "language": "en", "delay": "low"},
    }  # fmt: skip
    update = {
        "type": "session.update",
        "event_id": "1",
        "session": {"type": "transcription", "audio": {"input": audio_input}},
    }
    beta = {"input_audio_format": "pcm16", "turn_detection": detection, "input_audio_transcription": {"model": "x"}}
    older = {"type": "transcription_session.update", "session": beta}
    appended = [{"type": "input_audio_buffer.append", "audio": encoded(data)} for data in packets(rng, 24_000)]
    end = rng.choice(("commit", "clear", "done"))
    response: list[Message] = [{"type": "response.create", "response": {"modalities": ["text"]}}]
    return [rng.choice((update, older)), *appended, {"type": f"input_audio_buffer.{end}"}, *response]


def segments_stream(rng: Random) -> list[Message]:
    return [*packets(rng), *packets(rng), "finalize"]


def wyoming(rng: Random) -> list[Message]:
    form_of = {"rate": 16_000, "width": 2, "channels": 1}
    chunks = [{"type": "audio-chunk", "data": form_of, "payload": data} for data in packets(rng)]
    begin = [{"type": "describe"}, {"type": "transcribe", "data": {"language": "en", "name": "tiny"}}]
    return [*begin, {"type": "audio-start", "data": form_of}, *chunks, {"type": "audio-stop"}, {"type": "ping"}]


def recording(rng: Random) -> list[Message]:
    return [rng.choice((FLAC, WAV.read_bytes()[: 44 + 64_000]))]


def openai_form(rng: Random) -> list[Message]:
    options: tuple[dict[str, str], ...] = (
        {"response_format": "json", "include[]": "logprobs"},
        {"response_format": "verbose_json", "timestamp_granularities[]": "word"},
        {"response_format": "text", "stream": "true"},
        {"response_format": "srt"},
        {"response_format": "vtt", "chunking_strategy": "auto"},
    )
    return [{"file": FLAC, "model": "whisper-1", "temperature": "0.2", "language": "en"} | rng.choice(options)]


def plain_form(rng: Random) -> list[Message]:
    return [{"file": FLAC, "language": "en", "num_speakers": "2"}]


def remote(rng: Random) -> list[Message]:
    """URLs that the server must not fetch."""
    hosts = ("127.0.0.1:1", "169.254.169.254", "[::1]", "0.0.0.0", "localhost", "127.1", "2130706433", "x.invalid")
    return [{"url": f"http://{rng.choice(hosts)}/a.wav"}]


def secrets(rng: Random) -> list[Message]:
    session = {"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
    return [{"expires_after": {"anchor": "created_at", "seconds": 60}, "session": session}]


def riva_config(rate: int) -> bytes:
    """A `RecognitionConfig`: PCM, a rate, en-US, word times, punctuation."""
    return b"\x08\x01\x10" + _varint(rate) + b"\x1a\x05en-US" + b"\x40\x01\x58\x01"


def riva_stream(rng: Random) -> list[Message]:
    config = _field(1, riva_config(16_000)) + b"\x10\x01"
    return [_field(1, config), *(_field(2, data) for data in packets(rng)), b""]


def riva_batch(rng: Random) -> list[Message]:
    return [_field(1, riva_config(16_000)) + _field(2, b"".join(packets(rng))[:16_000]), b""]


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    result = b""
    while value > 127:
        result, value = result + bytes([value & 127 | 128]), value >> 7
    return result + bytes([value])


def _targets() -> Iterator[Target]:
    json_frames = websocket_frame()
    packed_frames = websocket_frame(packed=True)
    live = "encoding=linear16&sample_rate=16000"
    sockets = [
        ("native", "/v1/stream", json_frames, native, b'"ready"'),
        ("native, msgpack", "/v1/stream?format=msgpack", packed_frames, native_packed, b"ready"),
        ("native, binary", "/v1/stream?events=true&model=tiny", json_frames, native_bytes, b'"ready"'),
        ("marker", "/ws", packed_frames, marker, b'"Ready"'),
        ("deepgram", f"/v1/listen?{live}&interim_results=true", json_frames, deepgram_live, b'"Metadata"'),
        (
            "deepgram, any",
            "/v1/listen?model=nova-3",
            json_frames,
            deepgram_live_file,
            b'"Metadata"',
        ),
        ("deepgram, turns", f"/v2/listen?model=flux-general-en&{live}", json_frames, deepgram_turns, b'"Connected"'),
        ("realtime", "/v1/realtime?intent=transcription", json_frames, realtime, b"session.created"),
        ("segments", "/v3/stream?sample_rate=16000", json_frames, segments_stream, b'"ready"'),
    ]
    for name, path, wire, messages, answer in sockets:
        yield Target(name, "web", wire, messages, answer, upgrade(path))
    calls = [("riva, stream", "StreamingRecognize", riva_stream), ("riva, batch", "Recognize", riva_batch)]
    for name, method, messages in calls:
        opening = grpc_opening(f"/nvidia.riva.asr.RivaSpeechRecognition/{method}")
        yield Target(name, "grpc", grpc_frame, messages, b"\x01\x04\x00\x00\x00\x01\x88", opening)  # status 200
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
    for name, wire, messages, answer in requests:
        yield Target(name, "web", wire, messages, answer)


TARGETS = {target.name: target for target in _targets()}
