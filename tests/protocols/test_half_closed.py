"""Clients that half-close the connection after their last byte, as `nc` does, and wait for responses."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from conure.event_loop import new_event_loop
from conure.protocols.http import uvicorn_http as http_requests
from conure.protocols.http.connection_limits import ConnectionLimits
from conure.protocols.http.uvicorn_http import LimitedHttpProtocol
from tests.protocols.live_clients import TINY, Message, converse, finals, lines, pcm16, pieces, spoken
from tests.protocols.servers import DEMO, PATIENCE, QUIET, SAID, Server, demo
from tests.protocols.test_wyoming import chunk, frame, request

DIGITS = pcm16(demo())
CLOSE = {"type": "close"}
PLAIN = TINY | {"events": False}


def as_lines(*messages: Message) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def half_close(port: int, sent: bytes) -> bytes:
    """Sends the bytes, half-closes, and returns the response."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            return answer.read()


def messages_in(answer: bytes) -> list[Any]:
    """Messages without the greeting."""
    sent = [json.loads(line) for line in answer.splitlines()]
    return [message for message in sent if message["type"] != "hello"]


AUDIO = [spoken(piece) for piece in pieces(DIGITS)]


@pytest.mark.parametrize("config", [TINY, PLAIN], ids=["events", "results"])
@pytest.mark.parametrize("end", [as_lines(CLOSE), b"", b'{"type": "close"}'], ids=["close", "nothing", "no newline"])
def test_native_stream_over_tcp(server: Server, config: Message, end: bytes) -> None:
    received = messages_in(half_close(server.tcp, as_lines(config, *AUDIO) + end))
    if config is TINY:
        assert finals(received) == SAID
        assert received[-1]["type"] == "finished"
    else:
        assert (received[-1]["text"], received[-1]["is_final"]) == (SAID, True)
    server.settled(0)


def test_half_close_without_messages_opens_no_stream(server: Server) -> None:
    assert messages_in(half_close(server.tcp, b"")) == []
    assert messages_in(half_close(server.tcp, as_lines({"type": "hello"}))) == []
    assert messages_in(half_close(server.tcp, as_lines({"type": "ping", "id": 7}))) == [{"type": "pong", "id": 7}]


@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
def test_broken_connection_can_be_resumed(server: Server, with_reset: bool) -> None:
    """The client is gone, and resumes the stream on a new connection."""
    middle = 2 * QUIET
    with lines(server) as client:
        for message in (TINY, *pieces(DIGITS[:middle])):
            client.say(message)
        ready = client.hear()
        assert ready is not None
        client.say({"type": "ping", "id": 1})
        while (message := client.hear()) != {"type": "pong", "id": 1}:
            assert message is not None
        if with_reset:
            client.cut()
        else:
            client.connection.close()
            client._lines.close()
    with lines(server) as again:
        again.say({"type": "resume", "token": ready["token"], "seq": 0})
        back = again.hear()
        assert back is not None
        assert back["received"] == middle
        assert finals(converse(again, [*pieces(DIGITS[middle:]), CLOSE])) == SAID


OTHER_PROTOCOLS = {
    "pcm": DIGITS[:64_000],
    "silence": bytes(320),
    "mulaw": b"\xff\x7f\xfe\x7e" * 500,
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(range(190)),
    "wav": b"RIFF\x24\x00\x00\x80WAVEfmt \x10\x00\x00\x00" + bytes(1_000),
    "flac": DEMO.read_bytes()[:10_000],
    "a very long word": b"x" * 100_000,
}
EXPECTED_ERRORS = {"http": "does not support HTTP", "http2": "does not support HTTP", "tls": "does not support TLS"}


@pytest.mark.parametrize("kind", OTHER_PROTOCOLS)
@pytest.mark.parametrize("is_half_closed", [False, True])
def test_other_protocol_gets_one_error(server: Server, kind: str, is_half_closed: bool) -> None:
    """The hint describes the protocol; then the server closes, whether or not the client sends more."""
    with socket.create_connection((server.host, server.tcp), timeout=PATIENCE) as connection:
        connection.sendall(OTHER_PROTOCOLS[kind])
        if is_half_closed:
            connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            (error,) = messages_in(answer.read())
    assert (error["type"], error["code"]) == ("error", "bad_message")
    assert EXPECTED_ERRORS.get(kind, "") in error["message"]
    assert '{"type": "audio"' in error["hint"]


def test_raw_audio_after_lines_gets_one_error(server: Server) -> None:
    received = messages_in(half_close(server.tcp, as_lines(TINY) + DIGITS))
    assert [message["type"] for message in received if message["type"] != "received"] == ["ready", "error"]
    server.settled(0)


@pytest.mark.parametrize("sent", [request(), request().removesuffix(frame("audio-stop"))], ids=["stop", "nothing"])
def test_wyoming(server: Server, sent: bytes) -> None:
    answer = half_close(server.ports["wyoming"], sent)
    assert answer.count(b'"transcript-stop"') == 1
    assert json.dumps(SAID).encode() in answer


def test_wyoming_message_cut_off(server: Server) -> None:
    answer = half_close(server.ports["wyoming"], chunk(DIGITS[:6_400])[:-100])
    assert b"transcript" not in answer
    server.settled(0)


def head(**headers: object) -> bytes:
    lines = [
        "POST /v1/transcribe HTTP/1.1",
        "Host: 127.0.0.1",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).replace("_", "-").encode()


def chunked(data: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces(data, 3_000))


def test_uploads(server: Server) -> None:
    recording = DEMO.read_bytes()
    whole = head(Content_Length=len(recording)) + recording
    in_chunks = head(Transfer_Encoding="chunked") + chunked(recording) + b"0\r\n\r\n"
    for sent in (whole, in_chunks):
        answer = half_close(server.web, sent)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert json.dumps(SAID).encode() in answer


@pytest.mark.parametrize("kind", ["length", "chunked", "head"])
def test_incomplete_uploads(server: Server, kind: str) -> None:
    recording = DEMO.read_bytes()
    sent = {
        "length": head(Content_Length=len(recording)) + recording[:10_000],
        "chunked": head(Transfer_Encoding="chunked") + chunked(recording[:10_000]),
        "head": head(Content_Length=len(recording))[:-10],
    }[kind]
    answer = half_close(server.web, sent)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"ended before the request did" in answer


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[int]:
    """Serves the application with `LimitedHttpProtocol`; yields the port."""
    connections = ConnectionLimits()

    def create_protocol(**options: Any) -> LimitedHttpProtocol:
        return LimitedHttpProtocol(connection=connections.admit("web"), **options)

    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off", http=create_protocol)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task
    connections.close()


@pytest.mark.parametrize("is_gone", [False, True])
def test_upload_is_processed_while_the_client_waits(is_gone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the client is gone, which looks the same at first, the request is cancelled."""
    monkeypatch.setattr(http_requests, "PROBE_SECONDS", 0.05)
    left = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        leaving = asyncio.ensure_future(receive())
        done, _ = await asyncio.wait([leaving], timeout=PATIENCE if is_gone else 0.5)
        if done:
            left.set()
            return
        leaving.cancel()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def scenario() -> None:
        async with serving(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head(Content_Length=4) + b"1234")
            await writer.drain()
            if is_gone:
                writer.close()
                await asyncio.wait_for(left.wait(), PATIENCE)
            else:
                writer.write_eof()
                *interim, answer = (await reader.read()).split(b"HTTP/1.1 ")
                assert answer.startswith(b"200 ")
                assert b"done" in answer
                assert {part[:4] for part in interim[1:]} == {b"100 "}
                writer.close()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(scenario())
