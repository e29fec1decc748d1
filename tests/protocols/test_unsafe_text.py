"""Unsafe text in any part of a request comes back escaped from every protocol: no failure, no injected header."""

from __future__ import annotations

import json
import socket
import struct
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import suppress

import grpc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.visits import upgrade
from conure.protocols.riva.riva_asr_pb2 import RecognitionConfig, RivaSpeechRecognitionConfigRequest
from tests.protocols.live_clients import Lines, lines
from tests.protocols.riva.calling import PCM, calling, configured
from tests.protocols.servers import DEMO, Server

CODES = (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
NASTY = (
    *("\0", "a\r\nX-Evil: 1", "\x1b[31mred", "\u202egnp.exe", "\ud800", "\udc00\ud800", "é" * 100, "日本" * 2_000),
    *("💥" * 40, "x" * 5_000, "a,b", "100%", '"', "\\", "\x7f\x80\x85\xa0\u2028\ufeff", " ", "\t", "%s%n", "{}", "'"),
)
ANSWER_SECONDS = 60.0
CLOSE = 0x88
Position = Callable[[str], str]
text = st.text(st.characters(), max_size=40) | st.sampled_from(NASTY)
few = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def quoted(text: str) -> str:
    return urllib.parse.quote(text.encode("utf-8", "surrogatepass"), safe="")


def query(path: str, name: str | None = None, rest: str = "") -> Position:
    """Text as the value or as the name of a query parameter."""
    return lambda text: f"{path}?{rest}{quoted(name or text)}={quoted(text)}"


PCM16 = "encoding=linear16&sample_rate=16000&"
SOCKETS = [
    *(query(path, None, PCM16) for path in ("/v1/listen", "/v2/listen")),
    *(query(path, name, PCM16) for path in ("/v1/listen", "/v2/listen") for name in ("model", "language", "tag")),
    *(query(path, name) for path in ("/v1/listen", "/v2/listen") for name in ("encoding", "channels", "callback")),
    *(query("/v1/stream", name) for name in (None, "model", "language", "endpointing", "format", "finals")),
    lambda text: f"/v1/stream?model={quoted(json.dumps(text))}",
    lambda text: f"/v1/stream?endpointing={quoted(json.dumps({text: 1}))}",
    *(query("/v3/stream", name) for name in ("sample_rate", "vad_threshold", "hangover_s")),
    *(query("/v1/realtime", name) for name in ("model", "dialect", "intent")),
    query("/ws"),
    lambda text: f"/{quoted(text)}/nowhere",
]
REQUESTS = [
    *(query("/v1/listen", name) for name in (None, "model", "language", "encoding")),
    *(query("/v1/listen", name) for name in ("callback", "replace", "utt_split")),
    *(query("/v1/transcribe", name) for name in (None, "model", "language", "stream")),
    lambda text: f"/{quoted(text)}",
    lambda text: f"/v1/models/{quoted(text)}/{quoted(text)}",
]
FIELDS = ("model", "language", "languages[]", "response_format", "include[]", "temperature", "diarize", "num_speakers")
FORMS = ("/v1/audio/transcriptions", "/v1/transcribe", "/v2/transcribe")
CHARSETS = ("utf-8", "utf-7", "utf-16", "unicode_escape", "idna", "punycode", "none")


@pytest.fixture(autouse=True)
def no_traceback(server: Server) -> Iterator[None]:
    before = len(server.lines)
    yield
    written = "".join(server.lines[before:])
    assert "Traceback" not in written
    assert all(line.rstrip("\n").isprintable() for line in server.lines[before:])


def exchange(server: Server, request: bytes, until_closed: bool = True) -> bytes:
    """Sends the request and reads the response; of a WebSocket, only its beginning."""
    received = b""
    with socket.create_connection((server.host, server.web), timeout=ANSWER_SECONDS) as connection:
        connection.sendall(request)
        while data := connection.recv(2**16):
            received += data
            if not until_closed and received.startswith(b"HTTP/1.1 101") and b"\r\n\r\n" in received:
                connection.sendall(b"\x88\x82" + bytes(4) + struct.pack("!H", 1000))  # close frame
                until_closed = True
    return received


def check_response(received: bytes) -> None:
    head, _, rest = received.partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    status = int(first.split()[1])
    assert status < 500, received[:500]
    for header in headers:
        line = header.decode("ascii")
        assert line.isprintable()
        assert len(line) < 4_000
    assert not any(header.lower().startswith(b"x-evil") for header in headers)
    if status >= 400:
        json.loads(rest.decode())
    if status == 101:
        check_frames(rest)


def check_frames(data: bytes) -> None:
    while data:
        kind, size = data[0], data[1]
        begin = 2
        if size > 125:
            begin = 4 if size == 126 else 10
            size = int.from_bytes(data[2:begin], "big")
        payload, data = data[begin : begin + size], data[begin + size :]
        if kind == CLOSE:
            assert len(payload) <= 125
            assert payload[2:].decode().isprintable()
        else:
            json.loads(payload.decode())


@pytest.mark.parametrize("place", SOCKETS)
@given(text=text)
@few
def test_text_in_a_websocket_url(server: Server, place: Position, text: str) -> None:
    check_response(exchange(server, upgrade(place(text)), until_closed=False))


@pytest.mark.parametrize("place", REQUESTS)
@given(text=text)
@few
def test_text_in_a_request_url(server: Server, place: Position, text: str) -> None:
    body = b"not a recording"
    head = f"POST {place(text)} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    check_response(exchange(server, head.encode() + body))


def form(path: str, fields: list[tuple[bytes, bytes]], file: str, charset: str = "utf-8") -> bytes:
    parts = [b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % field for field in fields]
    name = file.encode("utf-8", "surrogatepass").replace(b'"', b"%22").replace(b"\r", b"").replace(b"\n", b"")
    parts.append(b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n' % name)
    body = b"".join([*parts, DEMO.read_bytes(), b"\r\n--x--\r\n"])
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: multipart/form-data; boundary=x; charset={charset}\r\n\r\n".encode() + body


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("field", [*FIELDS, None])
@given(text=text, charset=st.sampled_from(CHARSETS))
@example(text="+2AA-", charset="utf-7")
@example(text="\\ud800", charset="unicode_escape")
@settings(few, max_examples=5)
def test_text_in_a_form(server: Server, path: str, field: str | None, text: str, charset: str) -> None:
    value = text.encode("utf-8", "surrogatepass")
    name = field.encode() if field else value.replace(b'"', b"%22").replace(b"\r", b"%0D").replace(b"\n", b"%0A")
    check_response(exchange(server, form(path, [(name, value)], text, charset)))


HEADERS = ("Host", "Origin", "Authorization", "Content-Type", "Sec-WebSocket-Protocol", "Cookie")


@pytest.mark.parametrize("name", HEADERS)
@given(text=text)
@few
def test_text_in_a_header(server: Server, name: str, text: str) -> None:
    value = text.encode("utf-8", "surrogatepass").translate(None, b"\r\n\0\x0b\x0c").strip() or b"x"
    socket = [line for line in upgrade("/v1/listen?" + PCM16).split(b"\r\n") if line]
    request = [b"POST /v1/listen HTTP/1.1", b"Host: localhost", b"Connection: close", b"Content-Length: 1"]
    for head in (socket, request):
        kept = [line for line in head if not line.startswith(name.encode() + b":")]
        sent = b"\r\n".join([*kept, name.encode() + b": " + value, b"", b"x" if head is request else b""])
        check_response(exchange(server, sent, until_closed=False))


@given(text=text)
@few
def test_text_in_native_lines(server: Server, text: str) -> None:
    sent = [
        {"type": text},
        {"type": "config", "endpointing": {text: 1}},
        {"type": "config", "finals": {"model": text}},
        {"type": "hello", "encoding": text, "stream_id": text},
        {"type": "resume", "token": text},
        {"type": "config", "model": text},
    ]
    with lines(server) as client:
        for message in sent:
            if not send_and_check(client, message):
                break


def send_and_check(client: Lines, message: object) -> bool:
    """Whether the connection is still open."""
    client.connection.sendall(json.dumps(message).encode() + b"\n")
    exchange = client.hear()
    return exchange is not None and exchange.get("code") == "bad_message"


@given(text=text)
@few
def test_text_in_wyoming_events(server: Server, text: str) -> None:
    for data in ({"name": text}, {"language": text}, {"name": [text]}, {text: text}):
        sent = [{"type": "transcribe", "data": data}, {"type": "audio-start", "data": {"rate": text, "width": 2}}]
        with socket.create_connection((server.host, server.ports["wyoming"]), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in sent))
            reader = connection.makefile("rb")
            head = json.loads(reader.readline())
            assert head["type"] == "error"
            json.loads(reader.read(head["data_length"]).decode())


@given(text=st.text(max_size=40) | st.sampled_from([one for one in NASTY if "\ud800" not in one]))
@few
def test_text_in_riva_calls(server: Server, text: str) -> None:
    """Also in map keys, which come back in metadata."""
    custom = RecognitionConfig(custom_configuration={text: text, "stop_history": text})
    named = RecognitionConfig(custom_configuration={text: text, f"{text}2": "x"})
    with calling(server) as riva:
        for config in (custom, named, RecognitionConfig(language_code=text, model=text)):
            config.MergeFrom(RecognitionConfig(encoding=PCM.encoding, sample_rate_hertz=16_000))
            call = riva.stream(iter([configured(config)]), timeout=ANSWER_SECONDS)
            with suppress(grpc.RpcError):
                assert not list(call)
            assert call.code() in CODES
            assert (call.details() or "").isprintable()
            for name, value in (*call.initial_metadata(), *call.trailing_metadata()):
                assert str(value).isprintable(), name
        with pytest.raises(grpc.RpcError) as refused:
            riva.models(RivaSpeechRecognitionConfigRequest(model_name=f"x{text}"), timeout=ANSWER_SECONDS)
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND
