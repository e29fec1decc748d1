"""The Wyoming protocol as bytes: transcripts, errors and invalid frames."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conure.engine.plan import ModelInfo
from conure.errors import Unauthorized
from conure.protocols.services import Services
from conure.protocols.wyoming import server as wyoming
from conure.protocols.wyoming.transcription import stream_request
from conure.service.model_directory import ModelDirectory
from tests.protocols.live_clients import pcm16, pieces
from tests.protocols.servers import PATIENCE, SAID, Server, demo

DIGITS = pcm16(demo())
AUDIO_FORMAT = {"rate": 16_000, "width": 2, "channels": 1}
TINY = {"name": "tiny", "language": "en"}
Received = tuple[str, dict[str, Any]]


def frame(type_: str, data: Any = None, payload: bytes = b"", **fields: Any) -> bytes:
    lengths = {"payload_length": len(payload)} if payload else {}
    inside = {} if data is None else {"data": data}
    return json.dumps({"type": type_} | inside | lengths | fields).encode() + b"\n" + payload


def chunk(pcm: bytes, audio_format: dict[str, int] = AUDIO_FORMAT) -> bytes:
    return frame("audio-chunk", audio_format, pcm)


def request(
    audio: bytes = DIGITS, audio_format: dict[str, int] = AUDIO_FORMAT, options: dict[str, Any] = TINY
) -> bytes:
    chunks = b"".join(chunk(pcm, audio_format) for pcm in pieces(audio))
    return frame("transcribe", options) + frame("audio-start", audio_format) + chunks + frame("audio-stop")


class Client:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._file = connection.makefile("rb")

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def receive(self) -> Received | None:
        """None where the server has hung up."""
        line = self._file.readline()
        if not line:
            return None
        head = json.loads(line)
        assert head["version"]
        return head["type"], json.loads(self._file.read(head["data_length"])) if "data_length" in head else {}

    def receive_until(self, type_: str) -> list[Received]:
        messages: list[Received] = []
        while not messages or messages[-1][0] != type_:
            message = self.receive()
            assert message is not None, messages
            messages.append(message)
        return messages

    def transcript(self) -> str:
        """Which its chunks must add up to."""
        messages = self.receive_until("transcript-stop")
        assert messages[0][0] == "transcript-start"
        assert [type_ for type_, _ in messages[-2:]] == ["transcript", "transcript-stop"]
        assert {type_ for type_, _ in messages[1:-2]} <= {"transcript-chunk"}
        text: str = messages[-2][1]["text"]
        assert "".join(data["text"] for _, data in messages[1:-2]) == text
        return text

    def close(self) -> None:
        self._file.close()
        self.connection.close()


@contextmanager
def connect_client(server: Server) -> Iterator[Client]:
    client = Client(socket.create_connection((server.host, server.ports["wyoming"]), timeout=PATIENCE))
    try:
        yield client
    finally:
        client.close()


def receive_error(server: Server, data: bytes) -> dict[str, Any]:
    """The error, after which the server must close the connection."""
    with connect_client(server) as client:
        client.send(data)
        error: dict[str, Any] = client.receive_until("error")[-1][1]
        assert client.receive() is None
    server.settled(0)
    return error


def test_consecutive_transcriptions(server: Server) -> None:
    with connect_client(server) as client:
        for _ in range(3):
            client.send(request())
            assert client.transcript() == SAID
        client.send(request(options={}))
        assert len(client.transcript()) > 10  # of the default model, which babbles
    server.settled(0)


def test_pipelined_transcriptions(server: Server) -> None:
    with connect_client(server) as client:
        client.send(request() + frame("ping", {"text": "still there?"}) + request())
        assert client.transcript() == SAID
        assert client.receive() == ("pong", {"text": "still there?"})
        assert client.transcript() == SAID


def test_pause_does_not_end_the_transcription(server: Server) -> None:
    quiet = bytes(2 * 16_000 * 4)
    with connect_client(server) as client:
        client.send(request(DIGITS + quiet + DIGITS))
        messages = client.receive_until("transcript-stop")
    assert messages[-2][1]["text"] == f"{SAID} {SAID}"


def test_describe(server: Server) -> None:
    with connect_client(server) as client:
        client.send(frame("describe"))
        message = client.receive()
    assert message is not None
    type_, data = message
    assert type_ == "info"
    (program,) = data["asr"]
    assert program["supports_transcript_streaming"]
    assert program["requires_external_vad"]
    assert program["attribution"].keys() == {"name", "url"}
    assert {model["name"]: model["languages"] for model in program["models"]} == {"small": [], "tiny": ["en"]}
    assert all(model["installed"] for model in program["models"])
    assert data["tts"] == data["wake"] == []


def as_width(audio: bytes, width: int) -> bytes:
    samples = np.frombuffer(audio, "<i2")
    if width == 1:
        return ((samples >> 8) + 128).astype(np.uint8).tobytes()
    wide = (samples.astype("<i4") << 16).view(np.uint8).reshape(-1, 4)
    return wide[:, 4 - width :].tobytes()


@pytest.mark.parametrize(
    ("audio", "audio_format"),
    [
        (as_width(DIGITS, 3), AUDIO_FORMAT | {"width": 3}),
        (as_width(DIGITS, 4), AUDIO_FORMAT | {"width": 4}),
        (as_width(DIGITS, 1), AUDIO_FORMAT | {"width": 1}),
        (np.frombuffer(DIGITS, "<i2").repeat(2).tobytes(), AUDIO_FORMAT | {"channels": 2}),
        (pcm16(demo(48_000)), AUDIO_FORMAT | {"rate": 48_000}),
        (pcm16(demo(22_050)), AUDIO_FORMAT | {"rate": 22_050}),
    ],
)
def test_audio_formats(server: Server, audio: bytes, audio_format: dict[str, int]) -> None:
    with connect_client(server) as client:
        client.send(request(audio, audio_format))
        assert client.transcript() == SAID


def test_audio_without_audio_start(server: Server) -> None:
    with connect_client(server) as client:
        client.send(frame("transcribe", TINY) + chunk(DIGITS) + frame("audio-stop"))
        assert client.transcript() == SAID
        client.send(frame("transcribe", TINY) + frame("audio-start", AUDIO_FORMAT))
        client.send(b"".join(frame("audio-chunk", payload=pcm) for pcm in pieces(DIGITS, 999)))
        client.send(frame("audio-stop", {"timestamp": 7}))
        assert client.transcript() == SAID


def test_no_speech(server: Server) -> None:
    with connect_client(server) as client:
        client.send(frame("audio-stop"))
        assert client.transcript() == ""
        client.send(request(b""))
        assert client.transcript() == ""


def test_unknown_messages_are_ignored(server: Server) -> None:
    with connect_client(server) as client:
        client.send(frame("select-program", {"name": "conure"}) + frame("run-pipeline", {"a": [1]}, b"\0" * 100))
        client.send(frame("ping"))
        assert client.receive() == ("pong", {"text": None})


def test_separate_data_is_merged(server: Server) -> None:
    data = json.dumps({"text": "two"}).encode()
    with connect_client(server) as client:
        client.send(frame("ping", {"text": "one", "more": 1}, data_length=len(data)) + data)
        assert client.receive() == ("pong", {"text": "two"})
        client.send(b'{"type": "ping", "data": null, "data_length": null, "payload_length": 0}\n')
        assert client.receive() == ("pong", {"text": None})


START = frame("audio-start", AUDIO_FORMAT)


@pytest.mark.parametrize(
    ("data", "code", "part"),
    [
        (request(options={"name": "none"}), "unknown_model", "'none'"),
        (request(options=TINY | {"language": "tlh"}), "unsupported_language", "it knows: en"),
        (request(options={"name": 7}), "bad_request", "$.name"),
        (request(audio_format=AUDIO_FORMAT | {"width": 5}), "bad_option", "5 bytes"),
        (request(audio_format=AUDIO_FORMAT | {"rate": 4_000}), "bad_option", "4000"),
        (request(audio_format=AUDIO_FORMAT | {"rate": -1}), "bad_option", "-1"),
        (request(audio_format=AUDIO_FORMAT | {"channels": 0}), "bad_option", "0 channels"),
        (frame("audio-start", AUDIO_FORMAT | {"rate": "fast"}), "bad_request", "$.rate"),
        (frame("audio-start", {"rate": 16_000}), "bad_request", "`width`"),
        (frame("audio-chunk", payload=b"1234"), "bad_request", "`rate`"),
        (START + START, "bad_option", "audio-start was sent twice"),
        (START + chunk(b"", AUDIO_FORMAT | {"channels": 2}), "bad_option", "channels=2"),
    ],
)
def test_rejections(server: Server, data: bytes, code: str, part: str) -> None:
    error = receive_error(server, data)
    assert error["code"] == code
    assert part in error["text"]


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"hello\n",
        b"GET / HTTP/1.1\r\n",
        b"[]\n",
        b"null\n",
        b'{"type": 1}\n',
        b'{"data": {}}\n',
        b'{"type": "ping", "data": []}\n',
        b'{"type": "ping", "data_length": -1}\n',
        b'{"type": "ping", "data_length": 1e300}\n',
        b'{"type": "ping", "data_length": 1048577}\n',
        b'{"type": "ping", "data_length": 2}\n[]',
        b'{"type": "ping", "data_length": 2}\n\xff\xff',
        b'{"type": "audio-chunk", "payload_length": 67108865}\n',
        b'{"type": "audio-chunk", "payload_length": 99999999999999999999999999}\n',
        b'{"type": "audio-chunk", "payload_length": true}\n',
        b'{"type": "\xff\xfe"}\n',
        b'{"type": "ping", "data": {"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}}\n",
        b"x" * (2**16 + 2),
    ],
)
def test_invalid_frames(server: Server, data: bytes) -> None:
    assert receive_error(server, data)["code"] == "bad_request"


WHOLE = frame("transcribe", TINY) + START + chunk(DIGITS[:20_000]) + frame("audio-stop")


@pytest.mark.parametrize("sent_bytes", [0, 1, 30, len(WHOLE) - 20_060, len(WHOLE) - 10_000, len(WHOLE) - 5, len(WHOLE)])
@pytest.mark.parametrize("is_reset", [False, True])
def test_disconnect_ends_the_stream(server: Server, sent_bytes: int, is_reset: bool) -> None:
    with connect_client(server) as client:
        client.send(WHOLE[:sent_bytes])
        if is_reset:
            client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    server.settled(0)


def test_error_is_delivered_while_the_client_is_sending(server: Server) -> None:
    with connect_client(server) as client:
        client.send(request(options={"name": "none"}))
        for _ in range(40):
            client.send(chunk(DIGITS))
        assert client.receive() == (
            "error",
            {"text": "this server has no model 'none': for live audio it has: small, tiny", "code": "unknown_model"},
        )
        assert client.receive() is None


# Cases that a running server cannot reach quickly.


def model_info(name: str, *languages: str) -> ModelInfo:
    return ModelInfo(name, name, "", b"", 0, languages, latencies=(160,))


@pytest.mark.parametrize(
    ("model", "language", "expected"),
    [
        (None, None, None),
        (None, "en", "english"),
        (None, "de", "many"),
        (None, "de-AT", None),  # refused by the default model, which names its languages
        ("many", "en", "many"),
        ("english", "de", "english"),
    ],
)
def test_language_selects_a_model(model: str | None, language: str | None, expected: str | None) -> None:
    cards = {model.name: model for model in (model_info("english", "en"), model_info("many", "en-US", "de-DE"))}
    models = ModelDirectory(SimpleNamespace(models_by_name=cards), tuple(cards), ())  # type: ignore[arg-type]
    chosen = stream_request(models, model, language)
    assert (chosen.model, chosen.language) == (expected, language)


class KeyedAccess:
    def identify(self, secret: str | None) -> Any:
        raise Unauthorized("a key is needed", "this protocol has none")


async def read_all(services: Any) -> bytes:
    server = await wyoming.serve_wyoming(services, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        message = await reader.read()
        writer.close()
        await writer.wait_closed()
    return message


def test_no_access_when_keys_are_required() -> None:
    services = Services(live=None, files=None, status=None, access=KeyedAccess())  # type: ignore[arg-type]
    assert b'{"text":"a key is needed: this protocol has none","code":"unauthorized"}' in asyncio.run(
        read_all(services)
    )


def test_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wyoming, "IDLE_SECONDS", 0.01)
    services = Services(live=None, files=None, status=None)  # type: ignore[arg-type]
    assert b'"code":"idle"' in asyncio.run(read_all(services))
