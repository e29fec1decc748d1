"""Tests of uploading recordings over HTTP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conure.client import (
    BadInput,
    BadMessage,
    BlockingClient,
    CannotConnect,
    Client,
    Segment,
    ServerBusy,
    ServerError,
    Transcript,
    Word,
)

ANSWER = b"""{"text": "Hello.", "language": "en", "duration": 1.5, "model": "tiny", "problems": ["cut off"], "segments":
[{"text": "Hello.", "start": 0, "end": 1, "words": [{"text": "Hello.", "start": 0, "end": 1, "confidence": 0.9}]}]}"""


@dataclass
class FakeHttpServer:
    """Sends the same response to every request, and records the request."""

    status: int = 200
    answer: bytes = ANSWER
    url: str = ""
    line: str = ""
    body: bytes = b""

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.line = head.splitlines()[0]
        assert "transfer-encoding: chunked" in head.lower()
        while size := int(await reader.readline(), 16):
            self.body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (self.status, len(self.answer)) + self.answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def serving(fake: FakeHttpServer) -> AsyncIterator[str]:
    server = await asyncio.start_server(fake.serve_connection, "127.0.0.1")
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def transcribe_async(fake: FakeHttpServer, source: Any, **options: Any) -> Transcript:
    async def scenario() -> Transcript:
        async with serving(fake) as url:
            return await Client(url).transcribe(source, **options)

    return asyncio.run(scenario())


def transcribe_blocking(fake: FakeHttpServer, source: Any, **options: Any) -> Transcript:
    async def scenario() -> Transcript:
        async with serving(fake) as url:
            return await asyncio.to_thread(lambda: BlockingClient(url).transcribe(source, **options))

    return asyncio.run(scenario())


@pytest.mark.parametrize("transcribe", [transcribe_async, transcribe_blocking])
def test_file(transcribe: Callable[..., Transcript], tmp_path: Path) -> None:
    fake, path = FakeHttpServer(), tmp_path / "a talk.mp3"
    path.write_bytes(bytes(range(256)) * 10_000)
    word = Word(text="Hello.", start=0, end=1, confidence=0.9)
    assert transcribe(fake, path, model="tiny", language="en") == Transcript(
        text="Hello.",
        language="en",
        duration=1.5,
        model="tiny",
        segments=[Segment(text="Hello.", start=0, end=1, words=[word])],
        problems=["cut off"],
    )
    assert fake.line == "POST /v1/transcribe?model=tiny&language=en&name=a+talk.mp3 HTTP/1.1"
    assert fake.body == path.read_bytes()


def test_bytes() -> None:
    fake = FakeHttpServer()
    transcribe_async(fake, b"sound" * 500_000)
    assert fake.line == "POST /v1/transcribe HTTP/1.1"
    assert fake.body == b"sound" * 500_000


@pytest.mark.parametrize(
    ("status", "answer", "kind", "code"),
    [
        (400, b'{"error": {"code": "unknown_model", "message": "x", "hint": "y"}}', ServerError, "unknown_model"),
        (503, b'{"error": {"code": "busy", "message": "x", "hint": null, "retry_after": 2.5}}', ServerBusy, "busy"),
        (502, b"<html>", CannotConnect, "cannot_connect"),
        (404, b"\xff", ServerError, "http_404"),
        (200, b"<html>", BadMessage, "bad_message"),
        (200, b"{}", BadMessage, "bad_message"),
    ],
)
def test_error_responses(status: int, answer: bytes, kind: type[ServerError], code: str) -> None:
    with pytest.raises(kind) as caught:
        transcribe_async(FakeHttpServer(status, answer), b"sound")
    assert caught.value.code == code
    if kind is ServerBusy:
        assert caught.value.retry_after == 2.5


def test_missing_file(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(BadInput, match=r"gone\.mp3 cannot be read: No such file"):
            await Client("http://127.0.0.1:9").transcribe(tmp_path / "gone.mp3")

    asyncio.run(scenario())


def test_unreachable_server() -> None:
    async def scenario() -> str:
        async with serving(FakeHttpServer()) as url:
            return url

    with pytest.raises(CannotConnect):
        BlockingClient(asyncio.run(scenario())).transcribe(b"sound")


def test_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    path.write_bytes(b"sound")
    fake = FakeHttpServer()
    assert transcribe_async(fake, path, track=2).text == "Hello."
    assert "track=2&name=caf%5Cxe9.wav" in fake.line
    for bad_path in (tmp_path / os.fsdecode(b"gone\xe9.wav"), "nul\0.wav"):
        with pytest.raises(BadInput) as raised:
            asyncio.run(Client("http://127.0.0.1:9").transcribe(bad_path))
        raised.value.message.encode()
