"""Deepgram's SDK and LiveKit's plugin transcribe recordings: bytes, streams of bytes, URLs, and rejections."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import httpx
import pytest
from deepgram import AsyncDeepgramClient, DeepgramClient, DeepgramClientEnvironment
from deepgram.core.api_error import ApiError
from deepgram.core.unchecked_base_model import construct_type
from deepgram.errors import BadRequestError
from deepgram.types import ListenV1Response
from livekit import rtc
from livekit.agents import APIConnectionError, APIConnectOptions
from livekit.plugins import deepgram

from tests.conformance.conftest import PYTHON
from tests.conformance.speech import PCM, RATE, SAID, WAV, packets
from tests.protocols.servers import PATIENCE, Server, started

WORDS = SAID.split()


def environment(server: Server) -> DeepgramClientEnvironment:
    return DeepgramClientEnvironment(
        base=server.base, production=server.base, agent=server.base, agent_rest=server.base
    )


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """Closed here, as the SDK would leave its own client open."""
    with httpx.Client(timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def client(server: Server, http: httpx.Client) -> DeepgramClient:
    return DeepgramClient(api_key="secret", environment=environment(server), httpx_client=http)


@pytest.fixture
def client_with_local_urls(server_with_local_urls: Server, http: httpx.Client) -> DeepgramClient:
    return DeepgramClient(api_key="secret", environment=environment(server_with_local_urls), httpx_client=http)


class FileSite(BaseHTTPRequestHandler):
    callbacks: queue.Queue[ListenV1Response] = queue.Queue()

    def do_GET(self) -> None:
        data = WAV.read_bytes() if self.path.startswith("/speech.wav") else b""
        self.send_response(200 if data else 404)
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.callbacks.put(construct_type(type_=ListenV1Response, object_=json.loads(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), FileSite) as web:
        serving = threading.Thread(target=web.serve_forever, args=(0.01,))
        serving.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        serving.join()


@pytest.fixture(scope="module")
def server_with_local_urls(cache: Path) -> Iterator[Server]:
    """A server that may fetch from local addresses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONURE_ALLOW_PRIVATE_URLS", "true")
        with started("tiny", cache, python=PYTHON) as running:
            yield running
            assert running.stop() == 0
            assert "Traceback" not in running.errors


def test_file(client: DeepgramClient) -> None:
    response = client.listen.v1.media.transcribe_file(request=WAV.read_bytes(), model="nova-3", smart_format=True)
    (channel,) = response.results.channels
    (alternative,) = channel.alternatives
    assert alternative.transcript == SAID
    assert [word.word for word in alternative.words] == WORDS
    assert alternative.paragraphs.paragraphs[0].sentences[0].start == alternative.words[0].start
    assert response.metadata.channels == 1
    assert response.metadata.created.year > 2000
    (model,) = response.metadata.models
    assert response.metadata.model_info[model]["name"] == "tiny"


def test_chunked_file_with_all_options(client: DeepgramClient) -> None:
    response = client.listen.v1.media.transcribe_file(
        request=iter(packets()),
        encoding="linear16",
        request_options={"additional_query_parameters": {"sample_rate": RATE}},
        model="nova-3",
        language="en-US",
        punctuate=True,
        paragraphs=True,
        utterances=True,
        utt_split=0.3,
        multichannel=True,
        search=["three nine", "eleven"],
        replace=["seven:heaven"],
        tag=["one", "two"],
        extra=["a:b"],
        keyterm=["seven"],
        diarize=True,
        summarize="v2",
        redact="pci",
        numerals=True,
        filler_words=True,
        profanity_filter=False,
        mip_opt_out=True,
    )
    (channel,) = response.results.channels
    assert channel.alternatives[0].transcript == SAID.replace("seven", "heaven")
    match, missing = channel.search
    assert match.hits[0].snippet == "three nine"
    assert missing.hits == []
    assert " ".join(utterance.transcript for utterance in response.results.utterances).split()[1:] == WORDS[1:]
    assert response.results.utterances[0].words[0].punctuated_word == "heaven"
    assert response.metadata.tags == ["one", "two"]
    ignored = {warning["parameter"] for warning in response.metadata.warnings}
    assert ignored == {"keyterm", "diarize", "summarize", "redact", "numerals"}


async def test_streamed_file(server: Server) -> None:
    async def parts() -> AsyncIterator[bytes]:
        data = WAV.read_bytes()
        for begin in range(0, len(data), 10_000):
            yield data[begin : begin + 10_000]

    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        client = AsyncDeepgramClient(access_token="secret", environment=environment(server), httpx_client=http)
        for request in (WAV.read_bytes(), parts()):
            response = await client.listen.v1.media.transcribe_file(request=request, model="nova-3")
            assert response.results.channels[0].alternatives[0].transcript == SAID


def test_url(client_with_local_urls: DeepgramClient, site: str) -> None:
    response = client_with_local_urls.listen.v1.media.transcribe_url(
        url=f"{site}/speech.wav?token=secret", model="nova-3"
    )
    assert response.results.channels[0].alternatives[0].transcript == SAID
    with pytest.raises(BadRequestError) as refused:
        client_with_local_urls.listen.v1.media.transcribe_url(url=f"{site}/none.wav")
    assert refused.value.body["err_code"] == "REMOTE_CONTENT_ERROR"


async def test_url_with_the_async_client(server_with_local_urls: Server, site: str) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        client = AsyncDeepgramClient(
            api_key="secret", environment=environment(server_with_local_urls), httpx_client=http
        )
        response = await client.listen.v1.media.transcribe_url(url=f"{site}/speech.wav", utterances=True)
    assert " ".join(utterance.transcript for utterance in response.results.utterances) == SAID


def test_callback(client_with_local_urls: DeepgramClient, site: str) -> None:
    response = client_with_local_urls.listen.v1.media.transcribe_file(
        request=WAV.read_bytes(), callback=f"{site}/later"
    )
    assert response.request_id
    later = FileSite.callbacks.get(timeout=PATIENCE)
    assert later.metadata.request_id == response.request_id
    assert later.results.channels[0].alternatives[0].transcript == SAID


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"request": b"no audio"}, "not audio"),
        ({"request": b""}, "empty"),
        ({"request": PCM, "encoding": "linear16"}, "sample_rate"),
        ({"request": WAV.read_bytes(), "model": "none"}, "'none'"),
        ({"request": WAV.read_bytes(), "language": "xx"}, "it knows: en"),
        ({"request": WAV.read_bytes(), "utterances": True, "utt_split": -1}, "utt_split"),
        ({"request": WAV.read_bytes(), "callback": "http://127.0.0.1/"}, "public"),
    ],
)
def test_rejections(client: DeepgramClient, options: dict[str, object], message: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.listen.v1.media.transcribe_file(**options)
    assert message in refused.value.body["err_msg"]
    assert refused.value.body["request_id"] == refused.value.headers["dg-request-id"]


def test_internal_urls_are_rejected(client: DeepgramClient, site: str, server: Server) -> None:
    for url in (f"{site}/speech.wav", f"{server.base}/metrics", "http://169.254.169.254/latest/meta-data/"):
        with pytest.raises(BadRequestError) as refused:
            client.listen.v1.media.transcribe_url(url=url)
        assert "public" in refused.value.body["err_msg"]


def test_file_too_large(client: DeepgramClient) -> None:
    with pytest.raises(ApiError) as refused:
        client.listen.v1.media.transcribe_file(request=bytes(2**20 + 1))
    assert refused.value.status_code == 413


def test_client_disconnect(server: Server, client: DeepgramClient) -> None:
    for sent in (0, 1000, WAV.stat().st_size):
        head = f"POST /v1/listen HTTP/1.1\r\nHost: x\r\nContent-Length: {WAV.stat().st_size}\r\n\r\n".encode()
        with socket.create_connection((server.host, server.web)) as connection:
            connection.sendall(head + WAV.read_bytes()[:sent])
    response = client.listen.v1.media.transcribe_file(request=WAV.read_bytes())
    assert response.results.channels[0].alternatives[0].transcript == SAID


@pytest.mark.parametrize("options", [{}, {"detect_language": True}, {"punctuate": False, "keyterm": ["seven"]}])
async def test_livekit(server: Server, options: dict[str, object]) -> None:
    frame = rtc.AudioFrame(PCM, RATE, 1, len(PCM) // 2)
    async with aiohttp.ClientSession() as session:
        stt = deepgram.STT(api_key="secret", base_url=f"{server.base}/v1/listen", http_session=session, **options)
        event = await stt.recognize(frame)
        (alternative,) = event.alternatives
        assert alternative.text == SAID
        assert [str(word) for word in alternative.words] == WORDS
        assert 0 < alternative.confidence <= 1
        assert 0 < alternative.start_time < alternative.end_time
        assert event.request_id


async def test_livekit_receives_rejections(server: Server) -> None:
    frame = rtc.AudioFrame(PCM, RATE, 1, len(PCM) // 2)
    async with aiohttp.ClientSession() as session:
        stt = deepgram.STT(api_key="secret", base_url=f"{server.base}/v1/listen", http_session=session, language="fr")
        with pytest.raises(APIConnectionError):
            await stt.recognize(frame, conn_options=APIConnectOptions(max_retry=0))
