"""Wyoming as bytes: transcripts, refusals by name, and frames that are none."""

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
SOUND = {"rate": 16_000, "width": 2, "channels": 1}
TINY = {"name": "tiny", "language": "en"}
Told = tuple[str, dict[str, Any]]


def frame(kind: str, data: Any = None, payload: bytes = b"", **fields: Any) -> bytes:
    lengths = {"payload_length": len(payload)} if payload else {}
    inside = {} if data is None else {"data": data}
    return json.dumps({"type": kind} | inside | lengths | fields).encode() + b"\n" + payload


def chunk(piece: bytes, sound: dict[str, int] = SOUND) -> bytes:
    return frame("audio-chunk", sound, piece)


def request(audio: bytes = DIGITS, sound: dict[str, int] = SOUND, asked: dict[str, Any] = TINY) -> bytes:
    chunks = b"".join(chunk(piece, sound) for piece in pieces(audio))
    return frame("transcribe", asked) + frame("audio-start", sound) + chunks + frame("audio-stop")


class Client:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._file = connection.makefile("rb")

    def say(self, data: bytes) -> None:
        self.connection.sendall(data)

    def hear(self) -> Told | None:
        """None where the server has hung up."""
        line = self._file.readline()
        if not line:
            return None
        head = json.loads(line)
        assert head["version"]
        return head["type"], json.loads(self._file.read(head["data_length"])) if "data_length" in head else {}

    def until(self, kind: str) -> list[Told]:
        heard: list[Told] = []
        while not heard or heard[-1][0] != kind:
            told = self.hear()
            assert told is not None, heard
            heard.append(told)
        return heard

    def transcript(self) -> str:
        """Which its chunks must add up to."""
        heard = self.until("transcript-stop")
        assert heard[0][0] == "transcript-start"
        assert [kind for kind, _ in heard[-2:]] == ["transcript", "transcript-stop"]
        assert {kind for kind, _ in heard[1:-2]} <= {"transcript-chunk"}
        text: str = heard[-2][1]["text"]
        assert "".join(data["text"] for _, data in heard[1:-2]) == text
        return text

    def close(self) -> None:
        self._file.close()
        self.connection.close()


@contextmanager
def connected(server: Server) -> Iterator[Client]:
    client = Client(socket.create_connection((server.host, server.ports["wyoming"]), timeout=PATIENCE))
    try:
        yield client
    finally:
        client.close()


def refusal(server: Server, said: bytes) -> dict[str, Any]:
    """The error, after which the server hangs up."""
    with connected(server) as client:
        client.say(said)
        error: dict[str, Any] = client.until("error")[-1][1]
        assert client.hear() is None
    server.settled(0)
    return error


def test_consecutive_transcriptions(server: Server) -> None:
    with connected(server) as client:
        for _ in range(3):
            client.say(request())
            assert client.transcript() == SAID
        client.say(request(asked={}))
        assert len(client.transcript()) > 10  # of the default model, which babbles
    server.settled(0)


def test_pipelined_transcriptions(server: Server) -> None:
    with connected(server) as client:
        client.say(request() + frame("ping", {"text": "still there?"}) + request())
        assert client.transcript() == SAID
        assert client.hear() == ("pong", {"text": "still there?"})
        assert client.transcript() == SAID


def test_pause_does_not_end_the_transcription(server: Server) -> None:
    quiet = bytes(2 * 16_000 * 4)
    with connected(server) as client:
        client.say(request(DIGITS + quiet + DIGITS))
        heard = client.until("transcript-stop")
    assert heard[-2][1]["text"] == f"{SAID} {SAID}"


def test_describe(server: Server) -> None:
    with connected(server) as client:
        client.say(frame("describe"))
        told = client.hear()
    assert told is not None
    kind, data = told
    assert kind == "info"
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
    ("audio", "sound"),
    [
        (as_width(DIGITS, 3), SOUND | {"width": 3}),
        (as_width(DIGITS, 4), SOUND | {"width": 4}),
        (as_width(DIGITS, 1), SOUND | {"width": 1}),
        (np.frombuffer(DIGITS, "<i2").repeat(2).tobytes(), SOUND | {"channels": 2}),
        (pcm16(demo(48_000)), SOUND | {"rate": 48_000}),
        (pcm16(demo(22_050)), SOUND | {"rate": 22_050}),
    ],
)
def test_audio_formats(server: Server, audio: bytes, sound: dict[str, int]) -> None:
    with connected(server) as client:
        client.say(request(audio, sound))
        assert client.transcript() == SAID


def test_audio_without_audio_start(server: Server) -> None:
    with connected(server) as client:
        client.say(frame("transcribe", TINY) + chunk(DIGITS) + frame("audio-stop"))
        assert client.transcript() == SAID
        client.say(frame("transcribe", TINY) + frame("audio-start", SOUND))
        client.say(b"".join(frame("audio-chunk", payload=piece) for piece in pieces(DIGITS, 999)))
        client.say(frame("audio-stop", {"timestamp": 7}))
        assert client.transcript() == SAID


def test_no_speech(server: Server) -> None:
    with connected(server) as client:
        client.say(frame("audio-stop"))
        assert client.transcript() == ""
        client.say(request(b""))
        assert client.transcript() == ""


def test_unknown_messages_are_ignored(server: Server) -> None:
    with connected(server) as client:
        client.say(frame("select-program", {"name": "conure"}) + frame("run-pipeline", {"a": [1]}, b"\0" * 100))
        client.say(frame("ping"))
        assert client.hear() == ("pong", {"text": None})


def test_separate_data_is_merged(server: Server) -> None:
    data = json.dumps({"text": "two"}).encode()
    with connected(server) as client:
        client.say(frame("ping", {"text": "one", "more": 1}, data_length=len(data)) + data)
        assert client.hear() == ("pong", {"text": "two"})
        client.say(b'{"type": "ping", "data": null, "data_length": null, "payload_length": 0}\n')
        assert client.hear() == ("pong", {"text": None})


START = frame("audio-start", SOUND)


@pytest.mark.parametrize(
    ("said", "code", "named"),
    [
        (request(asked={"name": "none"}), "unknown_model", "'none'"),
        (request(asked=TINY | {"language": "tlh"}), "unsupported_language", "it knows: en"),
        (request(asked={"name": 7}), "bad_request", "$.name"),
        (request(sound=SOUND | {"width": 5}), "bad_option", "5 bytes"),
        (request(sound=SOUND | {"rate": 4_000}), "bad_option", "4000"),
        (request(sound=SOUND | {"rate": -1}), "bad_option", "-1"),
        (request(sound=SOUND | {"channels": 0}), "bad_option", "0 channels"),
        (frame("audio-start", SOUND | {"rate": "fast"}), "bad_request", "$.rate"),
        (frame("audio-start", {"rate": 16_000}), "bad_request", "`width`"),
        (frame("audio-chunk", payload=b"1234"), "bad_request", "`rate`"),
        (START + START, "bad_option", "audio-start was sent twice"),
        (START + chunk(b"", SOUND | {"channels": 2}), "bad_option", "channels=2"),
    ],
)
def test_rejections(server: Server, said: bytes, code: str, named: str) -> None:
    error = refusal(server, said)
    assert error["code"] == code
    assert named in error["text"]


@pytest.mark.parametrize(
    "said",
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
def test_invalid_frames(server: Server, said: bytes) -> None:
    assert refusal(server, said)["code"] == "bad_request"


WHOLE = frame("transcribe", TINY) + START + chunk(DIGITS[:20_000]) + frame("audio-stop")


@pytest.mark.parametrize("sent", [0, 1, 30, len(WHOLE) - 20_060, len(WHOLE) - 10_000, len(WHOLE) - 5, len(WHOLE)])
@pytest.mark.parametrize("is_rude", [False, True])
def test_disconnect_ends_the_stream(server: Server, sent: int, is_rude: bool) -> None:
    with connected(server) as client:
        client.say(WHOLE[:sent])
        if is_rude:
            client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    server.settled(0)


def test_error_is_delivered_while_the_client_is_sending(server: Server) -> None:
    with connected(server) as client:
        client.say(request(asked={"name": "none"}))
        for _ in range(40):
            client.say(chunk(DIGITS))
        assert client.hear() == (
            "error",
            {"text": "this server has no model 'none': for live audio it has: small, tiny", "code": "unknown_model"},
        )
        assert client.hear() is None


# What no server that runs can be brought to at once.


def card(name: str, *languages: str) -> ModelInfo:
    return ModelInfo(name, name, "", b"", 0, languages, latencies=(160,))


@pytest.mark.parametrize(
    ("model", "language", "meant"),
    [
        (None, None, None),
        (None, "en", "english"),
        (None, "de", "many"),
        (None, "de-AT", None),  # refused by the default model, which names its languages
        ("many", "en", "many"),
        ("english", "de", "english"),
    ],
)
def test_language_selects_a_model(model: str | None, language: str | None, meant: str | None) -> None:
    cards = {found.name: found for found in (card("english", "en"), card("many", "en-US", "de-DE"))}
    models = ModelDirectory(SimpleNamespace(models=cards), tuple(cards), ())  # type: ignore[arg-type]
    choice = stream_request(models, model, language)
    assert (choice.model, choice.language) == (meant, language)


class Locked:
    def identify(self, secret: str | None) -> Any:
        raise Unauthorized("a key is needed", "this protocol has none")


async def told_by(behind: Any) -> bytes:
    server = await wyoming.serve_wyoming(behind, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        told = await reader.read()
        writer.close()
        await writer.wait_closed()
    return told


def test_no_access_when_keys_are_required() -> None:
    behind = Services(live=None, files=None, status=None, access=Locked())  # type: ignore[arg-type]
    assert b'{"text":"a key is needed: this protocol has none","code":"unauthorized"}' in asyncio.run(told_by(behind))


def test_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wyoming, "IDLE_SECONDS", 0.01)
    behind = Services(live=None, files=None, status=None)  # type: ignore[arg-type]
    assert b'"code":"idle"' in asyncio.run(told_by(behind))
