"""Keys, certificates and ports of whole servers: several processes, TLS, disabled protocols."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.sync.client import connect

from conure.client import Client, Finished
from conure.service.keys import encode_keys, new_key
from conure.service.limits import NO_LIMITS, Limits
from tests.protocols.live_clients import TINY, Lines, Message, Socket, converse, finals, lines, pcm16, pieces, socket_of
from tests.protocols.servers import DEMO, PATIENCE, ROOT, SAID, TINY_MODEL, Server, demo, started, wait_for

TLS = ROOT / "tests" / "data" / "tls"
DIGITS = pcm16(demo())
HALF = len(pieces(DIGITS)) // 2
CLOSE: Message = {"type": "close"}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """And where their file is."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    asked = {
        "all": NO_LIMITS,
        "three": Limits(streams=3),
        "five": Limits(requests_per_minute=5),
        "short": Limits(audio_minutes_per_day=0.2),
    }
    made = {name: new_key(name, datetime.now(UTC), limits=limits) for name, limits in asked.items()}
    file.write_text(encode_keys(key for key, _ in made.values()))
    return {name: secret for name, (_, secret) in made.items()} | {"file": str(file)}


@pytest.fixture(scope="module")
def server(cache: Path, secrets: dict[str, str]) -> Iterator[Server]:
    options = ("--processes", "2", "--resume-seconds", "60", "--keys", secrets["file"])
    with started(str(TINY_MODEL), cache, *options, key=secrets["all"]) as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.errors


def opened(server: Server, secret: str, stack: ExitStack) -> tuple[Socket, Message]:
    """A stream, or why there is none."""
    client = stack.enter_context(socket_of(server, additional_headers={"Authorization": f"Bearer {secret}"}))
    client.say(TINY)
    told = client.hear()
    assert told is not None
    return client, told


def process_of(told: Message) -> str:
    return str(told["token"]).partition(".")[0]


def test_streams_are_counted_over_all_processes_and_given_back(server: Server, secrets: dict[str, str]) -> None:
    with ExitStack() as stack:
        kept: dict[str, list[Socket]] = {}
        while len(kept) < 2:  # until both have one
            for client in [client for clients in kept.values() for client in clients]:
                client.cut()
            wait_for(lambda: server.health()["streams"] == 0)
            kept = {}
            for _ in range(3):
                client, told = opened(server, secrets["three"], stack)
                kept.setdefault(process_of(told), []).append(client)
        assert [opened(server, secrets["three"], stack)[1]["code"] for _ in range(6)] == ["too_many"] * 6
        number, lost = next(iter(kept.items()))
        psutil.Process(server.health()["processes"][f"server process {number}"]).kill()

        def is_free() -> bool:
            """A connection that waited for the process that died is lost with it."""
            with contextlib.suppress(OSError, InvalidMessage, ConnectionClosed):
                return bool(opened(server, secrets["three"], stack)[1]["type"] == "ready")
            return False

        for _ in lost:
            wait_for(is_free)
        assert opened(server, secrets["three"], stack)[1]["code"] == "too_many"


def test_requests_are_counted_over_all_processes(server: Server, secrets: dict[str, str]) -> None:
    with ExitStack() as stack:
        told = [opened(server, secrets["five"], stack)[1] for _ in range(12)]
    assert [message["type"] for message in told] == ["ready"] * 5 + ["error"] * 7
    assert {message["code"] for message in told[5:]} == {"too_many"}
    assert all(30 < message["retry_after"] <= 60 for message in told[5:])


def test_audio_is_counted_over_all_processes(server: Server, secrets: dict[str, str]) -> None:
    """12 s; each stream has 7. What is on its way when the parent has counted that much is heard, too."""
    ends, words = [], []
    for _ in range(4):
        with ExitStack() as stack:
            client, told = opened(server, secrets["short"], stack)
            if told["type"] == "error":
                ends.append(told["code"])
                continue
            with contextlib.suppress(ConnectionClosed):
                for message in [*pieces(DIGITS), CLOSE]:
                    client.say(message)
            heard = converse(client, [])
            ends.append(heard[-1].get("code", heard[-1]["type"]))
            words.append(finals(heard))
    assert ends[0] == "finished"
    assert words[0] == SAID
    assert ends[2:] == ["too_many"] * 2


def test_a_stream_is_resumed_in_another_process(server: Server, secrets: dict[str, str]) -> None:
    with ExitStack() as stack:
        client, ready = opened(server, secrets["all"], stack)
        for piece in pieces(DIGITS)[:HALF]:
            client.say(piece)
        client.say({"type": "ping"})
        while (told := client.hear()) and told["type"] != "pong":
            pass
        client.cut()
        heard: list[Message] = []
        for number in range(20):  # some of them come to the other process
            door: Callable[[Server], contextlib.AbstractContextManager[Socket | Lines]] = (socket_of, lines)[number % 2]
            with door(server) as again:
                again.say({"type": "resume", "token": ready["token"]})
                back = again.hear()
                assert back is not None
                assert back["type"] == "ready"
                if number == 19:
                    heard = converse(again, [*pieces(DIGITS[back["received"] :]), CLOSE])
                else:
                    again.cut()
    assert finals(heard) == SAID


@pytest.fixture(scope="module")
def encrypted(cache: Path) -> Iterator[Server]:
    files = ("--tls-certificate", str(TLS / "localhost.pem"), "--tls-key", str(TLS / "localhost.key.pem"))
    with started("tiny", cache, *files) as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.errors


def test_http_and_web_sockets_are_encrypted(encrypted: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    base = f"https://localhost:{encrypted.web}"
    assert f"https://127.0.0.1:{encrypted.web}" in encrypted.errors
    trusting = ssl.create_default_context(cafile=TLS / "localhost.pem")
    request = urllib.request.Request(base + "/v1/transcribe", data=DEMO.read_bytes())
    with urllib.request.urlopen(request, timeout=PATIENCE, context=trusting) as answer:
        assert json.loads(answer.read())["text"] == SAID
    with connect(base.replace("http", "ws") + "/v1/stream", ssl=trusting, compression=None) as connection:
        assert finals(converse(Socket(connection), [TINY, *pieces(DIGITS), CLOSE])) == SAID
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "localhost.pem"))

    async def talk() -> None:
        async with Client(base).stream(model="tiny") as stream:
            await stream.send(DIGITS)
            await stream.close()
            assert isinstance([event async for event in stream][-1], Finished)

    asyncio.run(talk())
    status, told = encrypted.get("/ready")  # over HTTP
    assert status == 400
    assert b"https://" in told


def refused(*options: str) -> str:
    """What a server says that does not start."""
    command = [sys.executable, "-m", "conure", "serve", "--model", "tiny", "--port", "free", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


def test_invalid_access_settings_prevent_the_start(tmp_path: Path) -> None:
    told = refused("--host", "0.0.0.0")
    assert "0.0.0.0 accepts other machines" in told
    assert "--keys" in told
    assert "--allow-anonymous" in told
    assert "does not exist" in refused("--keys", str(tmp_path / "none.json"))
    expired = ("--tls-certificate", str(TLS / "expired.pem"), "--tls-key", str(TLS / "expired.key.pem"))
    assert "expired on Jan  1 00:00:00 2021" in refused(*expired)
    assert "without a certificate" in refused("--tls-key", str(TLS / "expired.key.pem"))


CLOSED = ("--port", "0", "--tcp-port", "0", "--grpc-port", "0", "--wyoming-port", "0", "--status-port", "0")


def but(*names: str) -> tuple[str, ...]:
    return tuple(part if before not in names else "free" for before, part in zip(("", *CLOSED), CLOSED, strict=False))


@pytest.mark.parametrize(
    ("options", "names", "processes"),
    [
        (but("--port"), {"web"}, "2"),
        (but("--tcp-port"), {"tcp"}, "1"),
        (but("--tcp-port", "--status-port"), {"tcp", "status"}, "2"),
        ((*but("--tcp-port", "--port", "--status-port"), "--disable", "native"), {"web", "status"}, "1"),
    ],
)
def test_single_protocols(cache: Path, options: tuple[str, ...], names: set[str], processes: str) -> None:
    with started("tiny", cache, *options, "--processes", processes, "--drain-seconds", "1") as server:
        assert server.ports.keys() == names
        process = psutil.Process(server.process.pid)
        listening = {
            found.laddr.port
            for one in (process, *process.children(recursive=True))
            for found in one.net_connections("tcp")
            if found.status == psutil.CONN_LISTEN
        }
        assert listening == set(server.ports.values())
        if "tcp" in names:
            with lines(server) as client:
                assert finals(converse(client, [TINY, *pieces(DIGITS), CLOSE])) == SAID
        if "status" in names:
            assert server.told()["ready"]
        if "web" in names:
            is_open = "--disable" not in options
            assert server.post("/v1/transcribe", DEMO.read_bytes())[0] == (200 if is_open else 404)
            assert server.get("/ready")[0] == 200
        assert server.stop() == 0
        assert "Traceback" not in server.errors


def test_a_name_of_somebody_else_is_not_answered(cache: Path) -> None:
    """A page may give its own name our address."""
    with started("tiny", cache, *but("--port")) as server:
        for host, status in (("localhost", b"200"), ("rebound.example", b"403")):
            with socket.create_connection((server.host, server.web), timeout=PATIENCE) as connection:
                connection.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                assert connection.makefile("rb").readline().split()[1] == status
    with started("tiny", cache, *but("--port"), "--host", "0.0.0.0", "--allow-anonymous") as server:
        assert "access  any client, without keys" in server.errors
        with socket.create_connection(("127.0.0.1", server.web), timeout=PATIENCE) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n")
            assert connection.makefile("rb").readline().split()[1] == b"200"
