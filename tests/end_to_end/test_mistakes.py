"""A bug of the server during a stream ends that stream with an error, in every protocol."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.protocols.live_clients import lines, pcm16, socket_of
from tests.protocols.servers import PATIENCE, Server, demo, started

AUDIO = pcm16(demo())[:6_400]
COUNTED = 'conure_background_failures_total{task="serving a connection"}'
CONFIG = {"type": "config"}
APPENDED = json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(AUDIO).decode()})


@pytest.fixture(scope="module")
def server(cache: Path) -> Iterator[Server]:
    with started("tiny", cache, module="tests.end_to_end.faulty_server") as running:
        yield running
        assert running.health()["status"] == "ready"
        assert running.stop() == 0
        assert "serving a connection ended unexpectedly: ZeroDivisionError: a mistake of ours" in running.errors
        assert "never retrieved" not in running.errors


@pytest.fixture(autouse=True)
def counted(server: Server) -> Iterator[None]:
    before = server.metric(COUNTED)
    yield
    assert server.metric(COUNTED) == before + 1
    server.settled(0)


@pytest.mark.parametrize("door", [socket_of, lines], ids=["websocket", "tcp"])
def test_native_clients_get_the_error(server: Server, door: type) -> None:
    with door(server) as client:
        client.say(CONFIG)
        client.say(AUDIO)
        heard = []
        while (message := client.hear()) is not None:
            heard.append(message)
    assert (heard[-1]["type"], heard[-1]["code"]) == ("error", "engine_failed")
    assert heard[-1]["message"] == "internal server error"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/ws", AUDIO),
        ("/v1/listen?encoding=linear16&sample_rate=16000", AUDIO),
        ("/v2/listen?model=flux&encoding=linear16&sample_rate=16000", AUDIO),
        ("/v3/stream", AUDIO),
        ("/v1/realtime?intent=transcription", APPENDED),
    ],
)
def test_web_sockets_are_closed_with_a_reason(server: Server, path: str, said: str | bytes) -> None:
    with connect(server.url(path), compression=None, open_timeout=PATIENCE) as client:
        client.send(said)
        with pytest.raises(ConnectionClosed) as closed:
            list(client)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "internal server error")


def test_home_assistant_gets_the_error(server: Server) -> None:
    sound = {"rate": 16_000, "width": 2, "channels": 1}
    with socket.create_connection((server.host, server.ports["wyoming"]), timeout=PATIENCE) as client:
        for kind, payload in (("audio-start", b""), ("audio-chunk", AUDIO)):
            head = {"type": kind, "data": sound, "payload_length": len(payload)}
            client.sendall(json.dumps(head).encode() + b"\n" + payload)
        client.shutdown(socket.SHUT_WR)
        said = b""
        while part := client.recv(4096):
            said += part
    assert b"internal server error" in said
