"""A server with keys: who has none is refused in each door's own form, who has one is not, and no secret is logged."""

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
NOBODY = "cnr_000000000000_bm9ib2R5IGhhcyB0aGlzIHNlY3JldA"
TALK = [*pieces(DIGITS), CLOSE]


@dataclass
class Keys:
    """The file of the server, which tests add to."""

    file: Path

    def add(self, name: str, *scopes: Scope, limits: Limits = NO_LIMITS) -> str:
        """The secret; a server that runs may not know it yet."""
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
class Place:
    server: Server
    keys: Keys
    secrets: dict[str, str]
    """By name."""


@pytest.fixture(scope="module")
def place(live_models: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
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
        yield Place(server, keys, secrets)
        server.settled(0)
        assert server.stop() == 0
    assert "Traceback" not in server.errors
    assert "refused: the key is not known" in server.errors  # there is a log
    for secret in (*secrets.values(), NOBODY):
        assert secret.split("_", 2)[2] not in server.errors  # the random part may hold "_", too
        assert secret not in server.errors


def bearer(secret: str) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {secret}"}}


def ways(secret: str) -> list[tuple[str, dict[str, Any]]]:
    """To send a key with a WebSocket: what is added to its path, and to its connection."""
    offered = [[name, secret] for name in ("token", "bearer")]
    offered += [["realtime", f"{prefix}{secret}"] for prefix in ("openai-insecure-api-key.", "realtime-token.")]
    headers = ({"Authorization": f"Token {secret}"}, {"X-API-Key": secret}, {"api-key": secret})
    return [
        ("", bearer(secret)),
        *(("", {"additional_headers": header}) for header in headers),
        (f"?api_key={secret}", {"additional_headers": {}}),
        *(("", {"additional_headers": {}, "subprotocols": list(map(Subprotocol, names))}) for names in offered),
    ]


def answered(server: Server, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """Without the server's key."""
    request = urllib.request.Request(server.base + path, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.status, response.read(), _headers(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())["error"], _headers(error)


def _headers(answer: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


@pytest.mark.parametrize("path", ["/v1/stream", "/ws"])
def test_every_way_to_send_a_key(place: Place, path: str) -> None:
    for query, options in ways(place.secrets["live"]):
        with socket_of(place.server, path + query, **options) as client:
            offered = options.get("subprotocols")
            assert client.connection.subprotocol == (offered[0] if offered else None)
            client.say({"type": "config"} if path == "/v1/stream" else "END")
            told = client.hear()
            assert told is not None
            assert told["type"].lower() in ("ready", "result"), told


@pytest.mark.parametrize("path", ["/v1/stream", "/ws"])
def test_who_has_no_key_is_told_and_hung_up_on(place: Place, path: str) -> None:
    nothing: list[tuple[str, dict[str, Any]]] = [("", {"additional_headers": {}})]
    for query, options in nothing + ways(NOBODY):
        with socket_of(place.server, path + query, **options) as client:
            (told,) = converse(client, [])
            assert (told["type"].lower(), told["code"]) == ("error", "unauthorized")
            assert client.connection.close_code == 1008


@pytest.mark.parametrize("path", ["/v1/stream", "/ws"])
def test_a_key_that_is_for_something_else(place: Place, path: str) -> None:
    with socket_of(place.server, path, **bearer(place.secrets["files"])) as client:
        said = [{"type": "config"}] if path == "/v1/stream" else []
        (told,) = converse(client, said)
        assert told["code"] == "forbidden"
        assert client.connection.close_code == 1008


def test_lines_have_the_key_in_hello(place: Place) -> None:
    hello = {"type": "hello", "key": place.secrets["live"]}
    with lines(place.server) as client:
        heard = converse(client, [hello, TINY, *map(spoken, pieces(DIGITS)), CLOSE])
    assert finals(heard) == SAID
    for first in ({"type": "hello", "key": NOBODY}, TINY, {"type": "hello"}, spoken(DIGITS[:640])):
        with lines(place.server) as client:
            (told,) = converse(client, [first] if first["type"] != "hello" or "key" in first else [first, TINY])
            assert (told["type"], told["code"]) == ("error", "unauthorized")


def test_a_token_is_enough_to_come_back_over_lines(place: Place) -> None:
    with lines(place.server) as client:
        for message in ({"type": "hello", "key": place.secrets["live"]}, TINY, *pieces(DIGITS)):
            client.say(message)
        ready = client.hear()
        assert ready is not None
        client.cut()
    with lines(place.server) as again:
        again.say({"type": "resume", "token": ready["token"]})
        back = again.hear()
        assert back is not None
        assert back["type"] == "ready"
        assert finals(converse(again, [*pieces(DIGITS[back["received"] :]), CLOSE])) == SAID
    with lines(place.server) as client:
        (told,) = converse(client, [{"type": "resume", "token": "x"}])
        assert told["code"] == "bad_option"


def test_a_web_page_cannot_speak_lines(place: Place) -> None:
    with socket.create_connection((place.server.host, place.server.tcp), timeout=PATIENCE) as connection:
        body = json.dumps({"type": "hello", "key": place.secrets["live"]}) + "\n" + json.dumps(TINY) + "\n"
        connection.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n\r\n{body}".encode())
        told = connection.makefile().read()
    assert "does not support HTTP" in told
    assert "ready" not in told


def test_recordings(place: Place) -> None:
    recording = DEMO.read_bytes()
    for header in ({"Authorization": f"Bearer {place.secrets['files']}"}, {"X-API-Key": place.secrets["files"]}):
        assert json.loads(answered(place.server, "/v1/transcribe", recording, **header)[1])["text"] == SAID
    assert answered(place.server, f"/v1/transcribe?api_key={place.secrets['all']}", recording)[0] == 200
    status, error, headers = answered(place.server, "/v1/transcribe", recording)
    assert (status, error["code"], headers["www-authenticate"]) == (401, "unauthorized", "Bearer")
    assert answered(place.server, "/v1/transcribe", recording, Authorization=f"Bearer {NOBODY}")[0] == 401
    status, error, _ = answered(
        place.server, "/v1/transcribe", recording, Authorization=f"Bearer {place.secrets['live']}"
    )
    assert (status, error["code"]) == (403, "forbidden")


def test_what_strangers_are_told(place: Place) -> None:
    server = place.server
    assert json.loads(answered(server, "/ready")[1]) == {"ready": True}
    assert json.loads(answered(server, "/health")[1]) == {"status": "ready", "ready": True}
    assert answered(server, "/metrics")[0] == 401
    told = server.told()
    assert told.keys() == {"type", "connected_streams", "status", "ready"}
    assert (told["type"], told["status"]) == ("status", "ready")


def test_what_a_key_shows(place: Place) -> None:
    server = place.server
    assert "models" in server.health()
    assert server.get("/metrics")[0] == 200
    for path in ("/health", "/metrics"):
        assert answered(server, path, Authorization=f"Bearer {place.secrets['live']}")[0] == 403
        assert answered(server, path, Authorization=f"Bearer {NOBODY}")[0] == 401
        assert answered(server, f"{path}?api_key={place.secrets['all']}")[0] == 200
    assert server.metric('conure_refused_total{reason="unauthorized"}') > 0
    assert server.metric('conure_refused_total{reason="forbidden"}') > 0


def test_streams_at_once(place: Place) -> None:
    with socket_of(place.server, **bearer(place.secrets["one"])) as first:
        first.say(TINY)
        assert first.hear()
        with socket_of(place.server, **bearer(place.secrets["one"])) as second:
            (told,) = converse(second, [TINY])
            assert (told["code"], told["retry_after"]) == ("too_many", 5.0)
            assert "1 streams at once" in told["message"]
            assert second.connection.close_code == 1013
        with socket_of(place.server, "/ws", **bearer(place.secrets["one"])) as third:
            (told,) = converse(third, [])
            assert (told["code"], told["retry_after"]) == ("too_many", 5.0)
            assert third.connection.close_code == 1013
        assert finals(converse(first, TALK)) == SAID
    with socket_of(place.server, **bearer(place.secrets["one"])) as again:
        assert finals(converse(again, [TINY, *TALK])) == SAID


def test_requests_a_minute(place: Place) -> None:
    header, begun = {"Authorization": f"Bearer {place.secrets['few']}"}, time.monotonic()
    assert [answered(place.server, "/v1/transcribe", DEMO.read_bytes(), **header)[0] for _ in range(2)] == [200] * 2
    status, error, headers = answered(place.server, "/v1/transcribe", DEMO.read_bytes(), **header)
    took = time.monotonic() - begun
    assert (status, error["code"]) == (429, "too_many")
    assert 60 - took - 1 <= error["retry_after"] <= 60
    assert error["retry_after"] <= int(headers["retry-after"]) <= error["retry_after"] + 1
    with socket_of(place.server, **bearer(place.secrets["few"])) as client:
        assert [told["code"] for told in converse(client, [TINY])] == ["too_many"]


def test_a_stream_is_heard_to_the_end_of_what_its_key_may_send(place: Place) -> None:
    with socket_of(place.server, **bearer(place.secrets["short"])) as client:
        heard = converse(client, [TINY, *TALK])
        assert (heard[-1]["type"], heard[-1]["code"]) == ("failed", "too_many")
        assert 3600 < heard[-1]["retry_after"] <= 86_400 + 900
        assert client.connection.close_code == 1013
    words = finals(heard).split()
    assert words == SAID.split()[: len(words)]
    assert 2 <= len(words) <= 6
    assert heard[-2]["type"] == "final"
    with socket_of(place.server, **bearer(place.secrets["short"])) as client:
        assert [told["code"] for told in converse(client, [TINY])] == ["too_many"]


def test_a_recording_is_transcribed_whole_and_is_the_last_one(place: Place) -> None:
    header = {"Authorization": f"Bearer {place.secrets['brief']}"}
    status, body, _ = answered(place.server, "/v1/transcribe", DEMO.read_bytes(), **header)
    assert (status, json.loads(body)["text"]) == (200, SAID)
    assert answered(place.server, "/v1/transcribe", DEMO.read_bytes(), **header)[0] == 429


def test_keys_come_and_go_while_the_server_runs(place: Place) -> None:
    server, secret = place.server, place.keys.add("late", "live")

    def codes() -> list[str]:
        with socket_of(server, **bearer(secret)) as client:
            with contextlib.suppress(ConnectionClosed):
                client.say(TINY)
                client.say(CLOSE)
            return [told.get("code", told["type"]) for told in converse(client, [])]

    wait_for(lambda: "finished" in codes())
    with socket_of(server, **bearer(secret)) as client:
        client.say(TINY)
        assert client.hear()
        place.keys.remove("late")
        wait_for(lambda: codes() == ["unauthorized"])
        assert finals(converse(client, TALK)) == SAID  # what is open goes on


def test_pages_of_other_sites(place: Place) -> None:
    server = place.server
    for origin in ("https://foe.example", "http://localhost:1"):
        with pytest.raises(InvalidStatus) as caught:
            connect(server.url("/v1/stream"), origin=origin, additional_headers=server.headers)  # type: ignore[arg-type]
        assert caught.value.response.status_code == 403
    for origin in ("https://friend.example", server.base):
        with socket_of(server, origin=origin) as client:
            assert finals(converse(client, [TINY, *TALK])) == SAID
    _, _, headers = answered(server, "/ready", Origin="https://friend.example")
    assert headers["access-control-allow-origin"] == "https://friend.example"
    assert "access-control-allow-origin" not in answered(server, "/ready", Origin="https://foe.example")[2]


def test_the_client_sends_its_key(place: Place) -> None:
    async def talk(secret: str) -> str:
        said = []
        async with Client(place.server.base, key=secret).stream(model="tiny") as stream:
            await stream.send(DIGITS)
            await stream.close()
            async for event in stream:
                said.append(event)
        assert isinstance(said[-1], Finished)
        return (await Client(place.server.base, key=secret).transcribe(DEMO)).text

    assert asyncio.run(talk(place.secrets["all"])) == SAID
    with pytest.raises(ServerError, match="key is not known") as caught:
        asyncio.run(talk(NOBODY))
    assert caught.value.code == "unauthorized"
    with pytest.raises(ServerBusy) as busy:
        asyncio.run(talk(place.secrets["short"]))
    assert busy.value.code == "too_many"
    assert busy.value.retry_after
    assert place.secrets["all"] not in repr(Client(place.server.base, key=place.secrets["all"])._address)


def test_a_client_whose_stream_used_up_its_key(place: Place) -> None:
    secret = place.keys.add("spent", "live", limits=Limits(audio_minutes_per_day=0.02))

    async def talk() -> None:
        async with Client(place.server.base, key=secret).stream(model="tiny") as stream:
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
    place: Place, command: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = main([*command, "--url", place.server.base, "--key", NOBODY])
    said = capfd.readouterr()
    assert refused in (1, 2)
    assert "key is not known" in said.err or "needs a key" in said.err
    monkeypatch.setenv("CONURE_KEY", place.secrets["all"])
    main([*command, "--url", place.server.base, "--debug"])
    heard = capfd.readouterr()
    assert "error" not in heard.err
    assert heard.out
    for secret in (NOBODY, place.secrets["all"]):
        assert secret not in said.out + said.err + heard.out + heard.err


def test_an_upload_that_is_refused_is_told_so(place: Place) -> None:
    """Though its sender is still sending."""
    status, error, _ = answered(place.server, "/v1/transcribe", bytes(30_000_000))
    assert (status, error["code"]) == (401, "unauthorized")


def test_strangers_are_not_told_which_models_there_are(place: Place) -> None:
    """Nothing that they ask for is looked at before the key."""
    paths = json.loads(answered(place.server, "/openapi.json")[1])["paths"]
    asked = [(method.upper(), path) for path, methods in paths.items() for method in methods if path not in OPEN]
    assert len(asked) > 8
    for method, path in asked:
        told = {_told_to_stranger(place.server, method, path, model) for model in ("tiny", "no-such-model")}
        assert len(told) == 1, (method, path, told)
        assert "401" in told.pop(), (method, path)


OPEN = ("/health", "/ready")


def _told_to_stranger(server: Server, method: str, path: str, model: str) -> str:
    body = json.dumps({"model": model, "session": {"input_audio_transcription": {"model": model}, "type": "none"}})
    url = server.base + path.replace("{model}", model) + f"?model={model}"
    request = urllib.request.Request(url, None if method == "GET" else body.encode(), method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return f"{response.status} {response.read()!r}"
    except urllib.error.HTTPError as error:
        with error:
            said = error.read().decode()
            return f"{error.code} {said}" if "request_id" not in said else f"{error.code}"
