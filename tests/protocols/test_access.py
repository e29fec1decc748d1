"""A server with keys: each protocol refuses clients without a key in its own format, and no secret is logged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from conure.cli.main import main
from conure.client import Client, Finished, ServerBusy, ServerError, StreamFailed
from conure.service.access import Scope
from conure.service.keys import Key, encode_keys, new_key, read_keys
from conure.service.limits import NO_LIMITS, Limits
from tests.protocols.live_clients import TINY, Message, converse, finals, lines, pcm16, pieces, socket_of, spoken
from tests.protocols.servers import DEMO, PATIENCE, SAID, Server, demo, started, wait_for

DIGITS = pcm16(demo())
CLOSE: Message = {"type": "close"}
UNKNOWN_KEY = "cnr_000000000000_bm9ib2R5IGhhcyB0aGlzIHNlY3JldA"
MESSAGES = [*pieces(DIGITS), CLOSE]


@dataclass
class Keys:
    """The server's key file; tests add keys to it."""

    file: Path

    def add(self, name: str, *scopes: Scope, limits: Limits = NO_LIMITS) -> str:
        """Returns the secret. A running server reloads the file later."""
        known = read_keys(self.file) if self.file.exists() else []
        key, secret = new_key(name, datetime.now(UTC), scopes or ("live", "files", "status"), limits)
        self.write([*known, key])
        return secret

    def remove(self, name: str) -> None:
        self.write([key for key in read_keys(self.file) if key.name != name])

    def write(self, keys: list[Key]) -> None:
        other = self.file.with_suffix(".new")
        other.write_text(encode_keys(keys))
        other.replace(self.file)


@dataclass
class KeyedServer:
    server: Server
    keys: Keys
    secrets: dict[str, str]
    """By the name of the key."""


@pytest.fixture(scope="module")
def keyed(live_models: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedServer]:
    keys = Keys(tmp_path_factory.mktemp("keys") / "keys.json")
    secrets = {
        "all": keys.add("all"),
        "live": keys.add("live", "live"),
        "files": keys.add("files", "files"),
        "one": keys.add("one", "live", limits=Limits(streams=1)),
        "few": keys.add("few", "live", "files", limits=Limits(requests_per_minute=2)),
        "short": keys.add("short", "live", "files", limits=Limits(audio_minutes_per_day=0.05)),  # 3 s
        "brief": keys.add("brief", "files", limits=Limits(audio_minutes_per_day=0.05)),
    }
    options = ("--keys", str(keys.file), "--resume-seconds", "20", "--drain-seconds", "2", "--debug")
    with started(live_models, cache, *options, "--cors", "https://friend.example", key=secrets["all"]) as server:
        yield KeyedServer(server, keys, secrets)
        server.settled(0)
        assert server.stop() == 0
    assert "Traceback" not in server.errors
    assert "refused: the key is not known" in server.errors  # checks that the log is not empty
    for secret in (*secrets.values(), UNKNOWN_KEY):
        assert secret.split("_", 2)[2] not in server.errors  # the random part may contain "_", too
        assert secret not in server.errors


def bearer(secret: str) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {secret}"}}


def credential_options(secret: str) -> list[tuple[str, dict[str, Any]]]:
    """Ways to send a key with a WebSocket: suffix of the path, and options of `connect`."""
    offered = [[name, secret] for name in ("token", "bearer")]
    offered += [["realtime", f"{prefix}{secret}"] for prefix in ("openai-insecure-api-key.", "realtime-token.")]
    headers = ({"Authorization": f"Token {secret}"}, {"X-API-Key": secret}, {"api-key": secret})
    return [
        ("", bearer(secret)),
        *(("", {"additional_headers": header}) for header in headers),
        (f"?api_key={secret}", {"additional_headers": {}}),
        *(("", {"additional_headers": {}, "subprotocols": list(map(Subprotocol, names))}) for names in offered),
    ]


def request(server: Server, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """An HTTP request without the server's key."""
    http_request = urllib.request.Request(server.base + path, data=body, headers=headers)
    try:
        with urllib.request.urlopen(http_request, timeout=PATIENCE) as response:
            return response.status, response.read(), _headers(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())["error"], _headers(error)


def _headers(answer: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


@pytest.mark.parametrize("path", ["/v1/stream", "/ws"])
def test_every_way_to_send_a_key(keyed: KeyedServer, path: str) -> None:
    for query, options in credential_options(keyed.secrets["live"]):
        with socket_of(keyed.server, path + query, **options) as client:
            offered = options.get("subprotocols")
            assert client.connection.subprotocol == (offered[0] if offered else None)
            client.say({"type": "config"} if path == "/v1/stream" else "END")
            message = client.hear()
            assert message is not None
            assert message["type"].lower() in ("ready", "result"), message


@pytest.mark.parametrize("path", ["/v1/stream", "/ws"])
def test_client_without_key_is_refused_and_disconnected(keyed: KeyedServer, path: str) -> None:
    nothing: list[tuple[str, dict[str, Any]]] = [("", {"additional_headers": {}})]
    for query, options in nothing + credential_options(UNKNOWN_KEY):
        with socket_of(keyed.server, path + query, **options) as client:
            (message,) = converse(client, [])
            assert (message["type"].lower(), message["code"]) == ("error", "unauthorized")
            assert client.connection.close_code == 1008


@pytest.mark.parametrize("path", ["/v1/stream", "/ws"])
def test_key_without_the_scope(keyed: KeyedServer, path: str) -> None:
    with socket_of(keyed.server, path, **bearer(keyed.secrets["files"])) as client:
        sent = [{"type": "config"}] if path == "/v1/stream" else []
        (message,) = converse(client, sent)
        assert message["code"] == "forbidden"
        assert client.connection.close_code == 1008


def test_tcp_key_is_in_hello(keyed: KeyedServer) -> None:
    hello = {"type": "hello", "key": keyed.secrets["live"]}
    with lines(keyed.server) as client:
        received = converse(client, [hello, TINY, *map(spoken, pieces(DIGITS)), CLOSE])
    assert finals(received) == SAID
    for first in ({"type": "hello", "key": UNKNOWN_KEY}, TINY, {"type": "hello"}, spoken(DIGITS[:640])):
        with lines(keyed.server) as client:
            (message,) = converse(client, [first] if first["type"] != "hello" or "key" in first else [first, TINY])
            assert (message["type"], message["code"]) == ("error", "unauthorized")


def test_token_identifies_a_resume_over_tcp(keyed: KeyedServer) -> None:
    with lines(keyed.server) as client:
        for message in ({"type": "hello", "key": keyed.secrets["live"]}, TINY, *pieces(DIGITS)):
            client.say(message)
        ready = client.hear()
        assert ready is not None
        client.cut()
    with lines(keyed.server) as again:
        again.say({"type": "resume", "token": ready["token"]})
        back = again.hear()
        assert back is not None
        assert back["type"] == "ready"
        assert finals(converse(again, [*pieces(DIGITS[back["received"] :]), CLOSE])) == SAID
    with lines(keyed.server) as client:
        (response,) = converse(client, [{"type": "resume", "token": "x"}])
        assert response["code"] == "bad_option"


def test_http_request_to_the_tcp_port_is_rejected(keyed: KeyedServer) -> None:
    with socket.create_connection((keyed.server.host, keyed.server.tcp), timeout=PATIENCE) as connection:
        body = json.dumps({"type": "hello", "key": keyed.secrets["live"]}) + "\n" + json.dumps(TINY) + "\n"
        connection.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n\r\n{body}".encode())
        response = connection.makefile().read()
    assert "does not support HTTP" in response
    assert "ready" not in response


def test_recordings(keyed: KeyedServer) -> None:
    recording = DEMO.read_bytes()
    for header in ({"Authorization": f"Bearer {keyed.secrets['files']}"}, {"X-API-Key": keyed.secrets["files"]}):
        assert json.loads(request(keyed.server, "/v1/transcribe", recording, **header)[1])["text"] == SAID
    assert request(keyed.server, f"/v1/transcribe?api_key={keyed.secrets['all']}", recording)[0] == 200
    status, error, headers = request(keyed.server, "/v1/transcribe", recording)
    assert (status, error["code"], headers["www-authenticate"]) == (401, "unauthorized", "Bearer")
    assert request(keyed.server, "/v1/transcribe", recording, Authorization=f"Bearer {UNKNOWN_KEY}")[0] == 401
    status, error, _ = request(
        keyed.server, "/v1/transcribe", recording, Authorization=f"Bearer {keyed.secrets['live']}"
    )
    assert (status, error["code"]) == (403, "forbidden")


def test_public_status(keyed: KeyedServer) -> None:
    server = keyed.server
    assert json.loads(request(server, "/ready")[1]) == {"ready": True}
    assert json.loads(request(server, "/health")[1]) == {"status": "ready", "ready": True}
    assert request(server, "/metrics")[0] == 401
    message = server.told()
    assert message.keys() == {"type", "connected_streams", "status", "ready"}
    assert (message["type"], message["status"]) == ("status", "ready")


def test_status_with_a_key(keyed: KeyedServer) -> None:
    server = keyed.server
    assert "models" in server.health()
    assert server.get("/metrics")[0] == 200
    for path in ("/health", "/metrics"):
        assert request(server, path, Authorization=f"Bearer {keyed.secrets['live']}")[0] == 403
        assert request(server, path, Authorization=f"Bearer {UNKNOWN_KEY}")[0] == 401
        assert request(server, f"{path}?api_key={keyed.secrets['all']}")[0] == 200
    assert server.metric('conure_refused_total{reason="unauthorized"}') > 0
    assert server.metric('conure_refused_total{reason="forbidden"}') > 0


def test_concurrent_streams_limit(keyed: KeyedServer) -> None:
    with socket_of(keyed.server, **bearer(keyed.secrets["one"])) as first:
        first.say(TINY)
        assert first.hear()
        with socket_of(keyed.server, **bearer(keyed.secrets["one"])) as second:
            (message,) = converse(second, [TINY])
            assert (message["code"], message["retry_after"]) == ("too_many", 5.0)
            assert "1 streams at once" in message["message"]
            assert second.connection.close_code == 1013
        with socket_of(keyed.server, "/ws", **bearer(keyed.secrets["one"])) as third:
            (message,) = converse(third, [])
            assert (message["code"], message["retry_after"]) == ("too_many", 5.0)
            assert third.connection.close_code == 1013
        assert finals(converse(first, MESSAGES)) == SAID
    with socket_of(keyed.server, **bearer(keyed.secrets["one"])) as again:
        assert finals(converse(again, [TINY, *MESSAGES])) == SAID


def test_requests_per_minute_limit(keyed: KeyedServer) -> None:
    header, begun = {"Authorization": f"Bearer {keyed.secrets['few']}"}, time.monotonic()
    assert [request(keyed.server, "/v1/transcribe", DEMO.read_bytes(), **header)[0] for _ in range(2)] == [200] * 2
    status, error, headers = request(keyed.server, "/v1/transcribe", DEMO.read_bytes(), **header)
    took = time.monotonic() - begun
    assert (status, error["code"]) == (429, "too_many")
    assert 60 - took - 1 <= error["retry_after"] <= 60
    assert error["retry_after"] <= int(headers["retry-after"]) <= error["retry_after"] + 1
    with socket_of(keyed.server, **bearer(keyed.secrets["few"])) as client:
        assert [message["code"] for message in converse(client, [TINY])] == ["too_many"]


def test_stream_ends_at_the_audio_limit_of_its_key(keyed: KeyedServer) -> None:
    with socket_of(keyed.server, **bearer(keyed.secrets["short"])) as client:
        received = converse(client, [TINY, *MESSAGES])
        assert (received[-1]["type"], received[-1]["code"]) == ("failed", "too_many")
        assert 3600 < received[-1]["retry_after"] <= 86_400 + 900
        assert client.connection.close_code == 1013
    words = finals(received).split()
    assert words == SAID.split()[: len(words)]
    assert 2 <= len(words) <= 6
    assert received[-2]["type"] == "final"
    with socket_of(keyed.server, **bearer(keyed.secrets["short"])) as client:
        assert [message["code"] for message in converse(client, [TINY])] == ["too_many"]


def test_recording_may_exceed_the_audio_limit_once(keyed: KeyedServer) -> None:
    header = {"Authorization": f"Bearer {keyed.secrets['brief']}"}
    status, body, _ = request(keyed.server, "/v1/transcribe", DEMO.read_bytes(), **header)
    assert (status, json.loads(body)["text"]) == (200, SAID)
    assert request(keyed.server, "/v1/transcribe", DEMO.read_bytes(), **header)[0] == 429


def test_keys_are_reloaded(keyed: KeyedServer) -> None:
    server, secret = keyed.server, keyed.keys.add("late", "live")

    def codes() -> list[str]:
        with socket_of(server, **bearer(secret)) as client:
            with contextlib.suppress(ConnectionClosed):
                client.say(TINY)
                client.say(CLOSE)
            return [message.get("code", message["type"]) for message in converse(client, [])]

    wait_for(lambda: "finished" in codes())
    with socket_of(server, **bearer(secret)) as client:
        client.say(TINY)
        assert client.hear()
        keyed.keys.remove("late")
        wait_for(lambda: codes() == ["unauthorized"])
        assert finals(converse(client, MESSAGES)) == SAID  # an open stream continues


def test_cross_site_pages(keyed: KeyedServer) -> None:
    server = keyed.server
    for origin in ("https://foe.example", "http://localhost:1"):
        with pytest.raises(InvalidStatus) as caught:
            connect(server.url("/v1/stream"), origin=origin, additional_headers=server.headers)  # type: ignore[arg-type]
        assert caught.value.response.status_code == 403
    for origin in ("https://friend.example", server.base):
        with socket_of(server, origin=origin) as client:
            assert finals(converse(client, [TINY, *MESSAGES])) == SAID
    _, _, headers = request(server, "/ready", Origin="https://friend.example")
    assert headers["access-control-allow-origin"] == "https://friend.example"
    assert "access-control-allow-origin" not in request(server, "/ready", Origin="https://foe.example")[2]


def test_the_client_sends_its_key(keyed: KeyedServer) -> None:
    async def talk(secret: str) -> str:
        sent = []
        async with Client(keyed.server.base, key=secret).stream(model="tiny") as stream:
            await stream.send(DIGITS)
            await stream.close()
            async for event in stream:
                sent.append(event)
        assert isinstance(sent[-1], Finished)
        return (await Client(keyed.server.base, key=secret).transcribe(DEMO)).text

    assert asyncio.run(talk(keyed.secrets["all"])) == SAID
    with pytest.raises(ServerError, match="key is not known") as caught:
        asyncio.run(talk(UNKNOWN_KEY))
    assert caught.value.code == "unauthorized"
    with pytest.raises(ServerBusy) as busy:
        asyncio.run(talk(keyed.secrets["short"]))
    assert busy.value.code == "too_many"
    assert busy.value.retry_after
    assert keyed.secrets["all"] not in repr(Client(keyed.server.base, key=keyed.secrets["all"])._address)


def test_client_reports_an_exhausted_key(keyed: KeyedServer) -> None:
    secret = keyed.keys.add("spent", "live", limits=Limits(audio_minutes_per_day=0.02))

    async def talk() -> None:
        async with Client(keyed.server.base, key=secret).stream(model="tiny") as stream:
            for piece in pieces(DIGITS):
                await stream.send(piece)
            await stream.close()
            async for _ in stream:
                pass

    def failed() -> bool:
        with pytest.raises(ServerError) as caught:
            asyncio.run(talk())
        return isinstance(caught.value, StreamFailed) and caught.value.code == "too_many"

    wait_for(failed)


@pytest.mark.parametrize(
    "command",
    [
        ["stream", str(DEMO), "--pace", "0", "--model", "tiny"],
        ["bench", "live", "--streams", "1", "--seconds", "1", "--audio", str(DEMO), "--model", "tiny"],
        ["bench", "clips", "--at-once", "1", "--length", "5", "--seconds", "1", "--audio", str(DEMO)],
    ],
)
def test_commands_send_their_key(
    keyed: KeyedServer, command: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = main([*command, "--url", keyed.server.base, "--key", UNKNOWN_KEY])
    sent = capfd.readouterr()
    assert refused in (1, 2)
    assert "key is not known" in sent.err or "needs a key" in sent.err
    monkeypatch.setenv("CONURE_KEY", keyed.secrets["all"])
    main([*command, "--url", keyed.server.base, "--debug"])
    received = capfd.readouterr()
    assert "error" not in received.err
    assert received.out
    for secret in (UNKNOWN_KEY, keyed.secrets["all"]):
        assert secret not in sent.out + sent.err + received.out + received.err


def test_refused_upload_gets_its_response(keyed: KeyedServer) -> None:
    """The client gets the response although it is still sending."""
    status, error, _ = request(keyed.server, "/v1/transcribe", bytes(30_000_000))
    assert (status, error["code"]) == (401, "unauthorized")


def test_models_are_not_revealed_without_a_key(keyed: KeyedServer) -> None:
    """The key is checked before all other parts of a request."""
    paths = json.loads(request(keyed.server, "/openapi.json")[1])["paths"]
    options = [(method.upper(), path) for path, methods in paths.items() for method in methods if path not in OPEN]
    assert len(options) > 8
    for method, path in options:
        responses = {_response_without_key(keyed.server, method, path, model) for model in ("tiny", "no-such-model")}
        assert len(responses) == 1, (method, path, responses)
        assert "401" in responses.pop(), (method, path)


OPEN = ("/health", "/ready")


def _response_without_key(server: Server, method: str, path: str, model: str) -> str:
    body = json.dumps({"model": model, "session": {"input_audio_transcription": {"model": model}, "type": "none"}})
    url = server.base + path.replace("{model}", model) + f"?model={model}"
    request = urllib.request.Request(url, None if method == "GET" else body.encode(), method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return f"{response.status} {response.read()!r}"
    except urllib.error.HTTPError as error:
        with error:
            sent = error.read().decode()
            return f"{error.code} {sent}" if "request_id" not in sent else f"{error.code}"
