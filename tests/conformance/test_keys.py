"""A server with keys: how each client sends its key, and how it reports rejections and rate limits."""

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

UNKNOWN_KEY = "cnr_000000000000_bm9ib2R5IGhhcyB0aGlzIHNlY3JldA"
LIVE = {"encoding": "linear16", "sample_rate": RATE}


class Keys:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "keys.json"
        self.secrets: list[str] = []

    def add(self, name: str, *options: str) -> str:
        """Creates a key and returns its secret."""
        command = [PYTHON, "-m", "conure", "keys", "add", name, "--keys", str(self.file), *options]
        environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "HOME": str(self.file.parent)}
        created = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        self.secrets.append(created.stdout.strip())
        return self.secrets[-1]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def key(keys: Keys) -> str:
    return keys.add("all")


@pytest.fixture(scope="module")
def limited_key(keys: Keys) -> str:
    """A key with one request per minute."""
    return keys.add("tired", "--requests-per-minute", "1")


@pytest.fixture(scope="module")
def status_key(keys: Keys) -> str:
    return keys.add("deaf", "--scope", "status")


@pytest.fixture(scope="module")
def guarded_server(keys: Keys, key: str, limited_key: str, status_key: str, cache: Path) -> Iterator[Server]:
    options = ("--keys", str(keys.file), "--drain-seconds", "2", "--debug")
    with started("tiny", cache, *options, python=PYTHON) as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.errors
        assert not [secret for secret in [*keys.secrets, UNKNOWN_KEY] if secret in running.errors]


def openai_client(server: Server, key: str) -> openai.OpenAI:
    return openai.OpenAI(api_key=key, base_url=f"{server.base}/v1", websocket_base_url=server.url("/v1"), max_retries=0)


def deepgram_client(server: Server, key: str) -> DeepgramClient:
    web, socket = server.base, server.url("")
    environment = DeepgramClientEnvironment(base=web, production=socket, agent=socket, agent_rest=web)
    return DeepgramClient(api_key=key, environment=environment)


def transcribe_openai(server: Server, key: str) -> str:
    return openai_client(server, key).audio.transcriptions.create(file=WAV, model="whisper-1").text


def transcribe_deepgram(server: Server, key: str) -> str:
    media = deepgram_client(server, key).listen.v1.media
    response: Any = media.transcribe_file(request=WAV.read_bytes(), model="nova-3", request_options={"max_retries": 0})
    return str(response.results.channels[0].alternatives[0].transcript)


def transcribe_riva(server: Server, key: str | None) -> str:
    metadata = [["authorization", f"Bearer {key}"]] if key else None
    auth = riva.client.Auth(uri=f"{server.host}:{server.ports['grpc']}", metadata_args=metadata)
    config = riva.client.RecognitionConfig(
        encoding=riva.client.AudioEncoding.LINEAR_PCM, sample_rate_hertz=RATE, language_code="en-US"
    )
    try:
        response = riva.client.ASRService(auth).offline_recognize(PCM, config)
    finally:
        auth.channel.close()
    return str(response.results[0].alternatives[0].transcript)


def deepgram_status(server: Server, key: str) -> int:
    """The HTTP status that rejects a live connection of Deepgram's SDK."""
    try:
        with deepgram_client(server, key).listen.v1.connect(**LIVE, model="nova-3"):
            return 101
    except ApiError as error:
        return error.status_code or 0
    except InvalidStatus as error:
        return error.response.status_code


def refusal_code(url: str, subprotocols: list[Subprotocol]) -> int:
    """The HTTP status or the close code that rejects a WebSocket."""
    try:
        with connect(url, subprotocols=subprotocols or None, compression=None) as socket:
            while True:
                socket.recv(10)
    except InvalidStatus as error:
        return error.response.status_code
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else 0


def test_valid_key(guarded_server: Server, key: str) -> None:
    assert transcribe_openai(guarded_server, key) == SAID
    assert transcribe_deepgram(guarded_server, key) == SAID
    assert transcribe_riva(guarded_server, key) == SAID


def test_openai(guarded_server: Server, status_key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        transcribe_openai(guarded_server, UNKNOWN_KEY)
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError, match="does not permit files"):
        transcribe_openai(guarded_server, status_key)


def test_deepgram(guarded_server: Server, status_key: str) -> None:
    for secret, status in ((UNKNOWN_KEY, 401), (status_key, 403)):
        with pytest.raises(ApiError) as refused:
            transcribe_deepgram(guarded_server, secret)
        assert refused.value.status_code == status
        assert {"err_code", "err_msg", "request_id"} <= set(refused.value.body)
        assert deepgram_status(guarded_server, secret) == status


def test_riva(guarded_server: Server, status_key: str) -> None:
    for secret, code in (
        (None, grpc.StatusCode.UNAUTHENTICATED),
        (UNKNOWN_KEY, grpc.StatusCode.UNAUTHENTICATED),
        (status_key, grpc.StatusCode.PERMISSION_DENIED),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            transcribe_riva(guarded_server, secret)
        assert refused.value.code() == code


async def test_wyoming_has_no_credentials(guarded_server: Server) -> None:
    async with AsyncTcpClient(guarded_server.host, guarded_server.ports["wyoming"]) as client:
        await client.write_event(Transcribe().event())
        event = await client.read_event()
    assert event
    assert Error.from_event(event).code == "unauthorized"


@pytest.mark.parametrize(
    "path", ["/v1/stream", "/ws", "/v1/listen", "/v2/listen?model=flux-general-en", "/v1/realtime", "/v3/stream"]
)
def test_keys_as_subprotocols(guarded_server: Server, key: str, path: str) -> None:
    """Browsers can send keys only as subprotocols."""
    with connect(
        guarded_server.url(path), subprotocols=[Subprotocol("token"), Subprotocol(key)], compression=None
    ) as socket:
        if path in ("/v1/stream", "/v1/listen"):
            assert socket.subprotocol == "token"
    assert refusal_code(guarded_server.url(path), [Subprotocol("token"), Subprotocol(UNKNOWN_KEY)]) in (401, 1008)


def test_client_secret_opens_only_a_session(guarded_server: Server, key: str) -> None:
    created = openai_client(guarded_server, key).realtime.client_secrets.create()
    with openai_client(guarded_server, created.value).realtime.connect(
        extra_query={"intent": "transcription"}
    ) as session:
        assert session.recv().type == "session.created"
    with pytest.raises(openai.AuthenticationError):
        transcribe_openai(guarded_server, created.value)
    with pytest.raises(openai.AuthenticationError):
        openai_client(guarded_server, UNKNOWN_KEY).realtime.client_secrets.create()


def test_rate_limit_has_retry_after(guarded_server: Server, limited_key: str) -> None:
    assert transcribe_openai(guarded_server, limited_key) == SAID
    with pytest.raises(openai.RateLimitError) as limited:
        transcribe_openai(guarded_server, limited_key)
    assert 0 < int(limited.value.response.headers["retry-after"]) <= 60
    assert limited.value.code == "rate_limit_exceeded"
    with pytest.raises(ApiError) as refused:
        transcribe_deepgram(guarded_server, limited_key)
    assert refused.value.status_code == 429
    assert int(refused.value.headers["retry-after"]) > 0
    with pytest.raises(grpc.RpcError) as exhausted:
        transcribe_riva(guarded_server, limited_key)
    assert exhausted.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert float(dict(exhausted.value.trailing_metadata())["retry-after"]) > 0
    assert deepgram_status(guarded_server, limited_key) == 429
    assert refusal_code(guarded_server.url(f"/v1/stream?api_key={limited_key}&events=true"), []) == 1013
