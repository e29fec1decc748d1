"""A server with keys: each program's own way to send one, and how it hears that it may not, or not now."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest
import riva.client
from deepgram import DeepgramClient, DeepgramClientEnvironment
from deepgram.core.api_error import ApiError
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol
from wyoming.asr import Transcribe
from wyoming.client import AsyncTcpClient
from wyoming.error import Error

from tests.conformance.conftest import PYTHON
from tests.conformance.speech import PCM, RATE, SAID, WAV
from tests.protocols.servers import ROOT, Server, started

NOBODY = "cnr_000000000000_bm9ib2R5IGhhcyB0aGlzIHNlY3JldA"
LIVE = {"encoding": "linear16", "sample_rate": RATE}


class Keys:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "keys.json"
        self.secrets: list[str] = []

    def add(self, name: str, *options: str) -> str:
        """The secret of a new key."""
        command = [PYTHON, "-m", "conure", "keys", "add", name, "--keys", str(self.file), *options]
        environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "HOME": str(self.file.parent)}
        made = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        self.secrets.append(made.stdout.strip())
        return self.secrets[-1]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def key(keys: Keys) -> str:
    return keys.add("all")


@pytest.fixture(scope="module")
def tired(keys: Keys) -> str:
    """May begin one thing a minute."""
    return keys.add("tired", "--requests-per-minute", "1")


@pytest.fixture(scope="module")
def deaf(keys: Keys) -> str:
    return keys.add("deaf", "--scope", "status")


@pytest.fixture(scope="module")
def guarded(keys: Keys, key: str, tired: str, deaf: str, cache: Path) -> Iterator[Server]:
    options = ("--keys", str(keys.file), "--drain-seconds", "2", "--debug")
    with started("tiny", cache, *options, python=PYTHON) as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.errors
        assert not [secret for secret in [*keys.secrets, NOBODY] if secret in running.errors]


def openai_client(server: Server, key: str) -> openai.OpenAI:
    return openai.OpenAI(api_key=key, base_url=f"{server.base}/v1", websocket_base_url=server.url("/v1"), max_retries=0)


def deepgram_client(server: Server, key: str) -> DeepgramClient:
    web, socket = server.base, server.url("")
    place = DeepgramClientEnvironment(base=web, production=socket, agent=socket, agent_rest=web)
    return DeepgramClient(api_key=key, environment=place)


def transcribed(server: Server, key: str) -> str:
    return openai_client(server, key).audio.transcriptions.create(file=WAV, model="whisper-1").text


def listened(server: Server, key: str) -> str:
    media = deepgram_client(server, key).listen.v1.media
    found: Any = media.transcribe_file(request=WAV.read_bytes(), model="nova-3", request_options={"max_retries": 0})
    return str(found.results.channels[0].alternatives[0].transcript)


def recognized(server: Server, key: str | None) -> str:
    metadata = [["authorization", f"Bearer {key}"]] if key else None
    auth = riva.client.Auth(uri=f"{server.host}:{server.ports['grpc']}", metadata_args=metadata)
    config = riva.client.RecognitionConfig(
        encoding=riva.client.AudioEncoding.LINEAR_PCM, sample_rate_hertz=RATE, language_code="en-US"
    )
    try:
        found = riva.client.ASRService(auth).offline_recognize(PCM, config)
    finally:
        auth.channel.close()
    return str(found.results[0].alternatives[0].transcript)


def refusal_of(server: Server, key: str) -> int:
    """The status of HTTP with which a live connection of Deepgram's SDK is refused."""
    try:
        with deepgram_client(server, key).listen.v1.connect(**LIVE, model="nova-3"):
            return 101
    except ApiError as error:
        return error.status_code or 0
    except InvalidStatus as error:
        return error.response.status_code


def told_by(url: str, subprotocols: list[Subprotocol]) -> int:
    """How a WebSocket is refused: a status of HTTP, or the code that it is closed with."""
    try:
        with connect(url, subprotocols=subprotocols or None, compression=None) as socket:
            while True:
                socket.recv(10)
    except InvalidStatus as error:
        return error.response.status_code
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else 0


def test_valid_key(guarded: Server, key: str) -> None:
    assert transcribed(guarded, key) == SAID
    assert listened(guarded, key) == SAID
    assert recognized(guarded, key) == SAID


def test_openai(guarded: Server, deaf: str) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        transcribed(guarded, NOBODY)
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError, match="not for files"):
        transcribed(guarded, deaf)


def test_deepgram(guarded: Server, deaf: str) -> None:
    for secret, status in ((NOBODY, 401), (deaf, 403)):
        with pytest.raises(ApiError) as refused:
            listened(guarded, secret)
        assert refused.value.status_code == status
        assert {"err_code", "err_msg", "request_id"} <= set(refused.value.body)
        assert refusal_of(guarded, secret) == status


def test_riva(guarded: Server, deaf: str) -> None:
    for secret, code in (
        (None, grpc.StatusCode.UNAUTHENTICATED),
        (NOBODY, grpc.StatusCode.UNAUTHENTICATED),
        (deaf, grpc.StatusCode.PERMISSION_DENIED),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            recognized(guarded, secret)
        assert refused.value.code() == code


async def test_wyoming_has_no_credentials(guarded: Server) -> None:
    async with AsyncTcpClient(guarded.host, guarded.ports["wyoming"]) as client:
        await client.write_event(Transcribe().event())
        event = await client.read_event()
    assert event
    assert Error.from_event(event).code == "unauthorized"


@pytest.mark.parametrize(
    "path", ["/v1/stream", "/ws", "/v1/listen", "/v2/listen?model=flux-general-en", "/v1/realtime", "/v3/stream"]
)
def test_keys_as_subprotocols(guarded: Server, key: str, path: str) -> None:
    """As browsers have to send them."""
    with connect(guarded.url(path), subprotocols=[Subprotocol("token"), Subprotocol(key)], compression=None) as socket:
        if path in ("/v1/stream", "/v1/listen"):
            assert socket.subprotocol == "token"
    assert told_by(guarded.url(path), [Subprotocol("token"), Subprotocol(NOBODY)]) in (401, 1008)


def test_client_secret_opens_only_a_session(guarded: Server, key: str) -> None:
    made = openai_client(guarded, key).realtime.client_secrets.create()
    with openai_client(guarded, made.value).realtime.connect(extra_query={"intent": "transcription"}) as session:
        assert session.recv().type == "session.created"
    with pytest.raises(openai.AuthenticationError):
        transcribed(guarded, made.value)
    with pytest.raises(openai.AuthenticationError):
        openai_client(guarded, NOBODY).realtime.client_secrets.create()


def test_rate_limit_has_retry_after(guarded: Server, tired: str) -> None:
    assert transcribed(guarded, tired) == SAID
    with pytest.raises(openai.RateLimitError) as limited:
        transcribed(guarded, tired)
    assert 0 < int(limited.value.response.headers["retry-after"]) <= 60
    assert limited.value.code == "rate_limit_exceeded"
    with pytest.raises(ApiError) as refused:
        listened(guarded, tired)
    assert refused.value.status_code == 429
    assert int(refused.value.headers["retry-after"]) > 0
    with pytest.raises(grpc.RpcError) as exhausted:
        recognized(guarded, tired)
    assert exhausted.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert float(dict(exhausted.value.trailing_metadata())["retry-after"]) > 0
    assert refusal_of(guarded, tired) == 429
    assert told_by(guarded.url(f"/v1/stream?api_key={tired}&events=true"), []) == 1013
