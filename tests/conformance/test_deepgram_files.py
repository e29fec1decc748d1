"""Deepgram's SDK and LiveKit's plugin transcribe recordings: bytes, streams of bytes, URLs, and what is refused."""

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
    """The SDK would leave its own open."""
    with httpx.Client(timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def client(server: Server, http: httpx.Client) -> DeepgramClient:
    return DeepgramClient(api_key="secret", environment=environment(server), httpx_client=http)


@pytest.fixture
def client_at_home(at_home: Server, http: httpx.Client) -> DeepgramClient:
    return DeepgramClient(api_key="secret", environment=environment(at_home), httpx_client=http)


class Site(BaseHTTPRequestHandler):
    heard: queue.Queue[ListenV1Response] = queue.Queue()

    def do_GET(self) -> None:
        found = WAV.read_bytes() if self.path.startswith("/speech.wav") else b""
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(found)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.put(construct_type(type_=ListenV1Response, object_=json.loads(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as web:
        serving = threading.Thread(target=web.serve_forever, args=(0.01,))
        serving.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        serving.join()


@pytest.fixture(scope="module")
def at_home(cache: Path) -> Iterator[Server]:
    """A server that may fetch from this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONURE_FETCH_PRIVATE", "true")
        with started("tiny", cache, python=PYTHON) as running:
            yield running
            assert running.stop() == 0
            assert "Traceback" not in running.errors


def test_file(client: DeepgramClient) -> None:
    told = client.listen.v1.media.transcribe_file(request=WAV.read_bytes(), model="nova-3", smart_format=True)
    (channel,) = told.results.channels
    (alternative,) = channel.alternatives
    assert alternative.transcript == SAID
    assert [word.word for word in alternative.words] == WORDS
    assert alternative.paragraphs.paragraphs[0].sentences[0].start == alternative.words[0].start
    assert told.metadata.channels == 1
    assert told.metadata.created.year > 2000
    (model,) = told.metadata.models
    assert told.metadata.model_info[model]["name"] == "tiny"


def test_chunked_file_with_all_options(client: DeepgramClient) -> None:
    told = client.listen.v1.media.transcribe_file(
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
    (channel,) = told.results.channels
    assert channel.alternatives[0].transcript == SAID.replace("seven", "heaven")
    found, missing = channel.search
    assert found.hits[0].snippet == "three nine"
    assert missing.hits == []
    assert " ".join(each.transcript for each in told.results.utterances).split()[1:] == WORDS[1:]
    assert told.results.utterances[0].words[0].punctuated_word == "heaven"
    assert told.metadata.tags == ["one", "two"]
    ignored = {warning["parameter"] for warning in told.metadata.warnings}
    assert ignored == {"keyterm", "diarize", "summarize", "redact", "numerals"}


async def test_streamed_file(server: Server) -> None:
    async def parts() -> AsyncIterator[bytes]:
        data = WAV.read_bytes()
        for begin in range(0, len(data), 10_000):
            yield data[begin : begin + 10_000]

    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        client = AsyncDeepgramClient(access_token="secret", environment=environment(server), httpx_client=http)
        for request in (WAV.read_bytes(), parts()):
            told = await client.listen.v1.media.transcribe_file(request=request, model="nova-3")
            assert told.results.channels[0].alternatives[0].transcript == SAID


def test_url(client_at_home: DeepgramClient, site: str) -> None:
    told = client_at_home.listen.v1.media.transcribe_url(url=f"{site}/speech.wav?token=secret", model="nova-3")
    assert told.results.channels[0].alternatives[0].transcript == SAID
    with pytest.raises(BadRequestError) as refused:
        client_at_home.listen.v1.media.transcribe_url(url=f"{site}/none.wav")
    assert refused.value.body["err_code"] == "REMOTE_CONTENT_ERROR"


async def test_url_with_the_async_client(at_home: Server, site: str) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        client = AsyncDeepgramClient(api_key="secret", environment=environment(at_home), httpx_client=http)
        told = await client.listen.v1.media.transcribe_url(url=f"{site}/speech.wav", utterances=True)
    assert " ".join(each.transcript for each in told.results.utterances) == SAID


def test_callback(client_at_home: DeepgramClient, site: str) -> None:
    told = client_at_home.listen.v1.media.transcribe_file(request=WAV.read_bytes(), callback=f"{site}/later")
    assert told.request_id
    later = Site.heard.get(timeout=PATIENCE)
    assert later.metadata.request_id == told.request_id
    assert later.results.channels[0].alternatives[0].transcript == SAID


@pytest.mark.parametrize(
    ("asked", "words"),
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
def test_rejections(client: DeepgramClient, asked: dict[str, object], words: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.listen.v1.media.transcribe_file(**asked)
    assert words in refused.value.body["err_msg"]
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
    told = client.listen.v1.media.transcribe_file(request=WAV.read_bytes())
    assert told.results.channels[0].alternatives[0].transcript == SAID


@pytest.mark.parametrize("options", [{}, {"detect_language": True}, {"punctuate": False, "keyterm": ["seven"]}])
async def test_livekit(server: Server, options: dict[str, object]) -> None:
    frame = rtc.AudioFrame(PCM, RATE, 1, len(PCM) // 2)
    async with aiohttp.ClientSession() as session:
        stt = deepgram.STT(api_key="secret", base_url=f"{server.base}/v1/listen", http_session=session, **options)
        event = await stt.recognize(frame)
        (heard,) = event.alternatives
        assert heard.text == SAID
        assert [str(word) for word in heard.words] == WORDS
        assert 0 < heard.confidence <= 1
        assert 0 < heard.start_time < heard.end_time
        assert event.request_id


async def test_livekit_receives_rejections(server: Server) -> None:
    frame = rtc.AudioFrame(PCM, RATE, 1, len(PCM) // 2)
    async with aiohttp.ClientSession() as session:
        stt = deepgram.STT(api_key="secret", base_url=f"{server.base}/v1/listen", http_session=session, language="fr")
        with pytest.raises(APIConnectionError):
            await stt.recognize(frame, conn_options=APIConnectOptions(max_retry=0))
