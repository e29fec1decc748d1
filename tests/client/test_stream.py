"""Tests of live streams without broken connections."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from conure.client import (
    BadInput,
    BadMessage,
    CannotConnect,
    Client,
    Endpointing,
    Event,
    Final,
    Finals,
    Finished,
    Marker,
    Partial,
    ReaderTooSlow,
    ServerBusy,
    ServerError,
    Stream,
    StreamClosed,
    StreamFailed,
)
from conure.client.codec import WireFormat
from conure.client.protocol import Cancel, Error, Failed, FromServer
from tests.client.scripted_server import WORD, Script, in_packets, serving, speech
from tests.waiting import PATIENCE, until


def run_alone(scenario: Coroutine[Any, Any, None]) -> None:
    """Runs the coroutine and checks that no task is left."""

    async def run_and_check() -> None:
        async with asyncio.timeout(PATIENCE):
            await scenario
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run_and_check())


async def read_all(stream: Stream) -> list[Event]:
    return [event async for event in stream]


@pytest.mark.parametrize("wire", ["binary", "json", "msgpack"])
def test_audio_is_sent_and_events_are_received(wire: WireFormat) -> None:
    async def scenario() -> None:
        async with serving() as server, Client(server.url).stream(wire=wire) as stream:
            for packet in in_packets(speech(5), 100):
                await stream.send(packet)
            assert await stream.finalize() == 1
            await stream.send(speech(2))
            await stream.close()
            events = await read_all(stream)
            heard = server.heard
        assert bytes(heard.audio) == speech(5) + speech(2)
        assert events == heard.events
        assert [type(event) for event in events] == [Partial] * 5 + [Final, Marker] + [Partial] * 2 + [Final, Finished]

    run_alone(scenario())


def test_options_reach_the_server() -> None:
    async def scenario() -> None:
        endpointing, finals = Endpointing(silence=None, longest=10), Finals(model="large")
        async with serving() as server:
            client = Client(server.url.replace("ws", "http") + "/", headers={"Authorization": "Bearer x"})
            options = {"model": "m", "latency_ms": 160, "language": "de", "endpointing": endpointing, "finals": finals}
            async with client.stream(**options, sample_rate=8000, encoding="mulaw", channels=2, lag=True) as stream:
                assert stream.ready.model == "m"
            config, hello = server.heard.config, server.heard.hello
        assert {name: getattr(config, name) for name in options} == options
        assert (config.events, config.lag) == (True, True)
        assert (hello.sample_rate, hello.encoding, hello.channels) == (8000, "mulaw", 2)

    run_alone(scenario())


def test_arrays_are_sent_in_the_encoding_of_the_stream() -> None:
    async def scenario() -> None:
        samples = np.array([0.0, 0.5, -1.0, 1.5], np.float32)
        async with serving() as server:
            async with Client(server.url).stream() as stream:
                await stream.send(samples)
                await stream.send(np.array([1, -2], np.int16))
                await stream.close()
                await read_all(stream)
            async with Client(server.url).stream(encoding="f32", channels=2) as stream:
                await stream.send(samples.reshape(2, 2))
                await stream.close()
                await read_all(stream)
            first, second = server.streams.values()
        assert np.frombuffer(first.audio, "<i2").tolist() == [0, 16384, -32767, 32767, 1, -2]
        assert np.frombuffer(second.audio, "<f4").tolist() == [0.0, -1.0, 0.5, 1.5]

    run_alone(scenario())


@pytest.mark.parametrize(
    ("array", "encoding", "fault"),
    [
        (np.zeros((2, 3), np.float32), "pcm16", "channels"),
        (np.zeros((1, 1, 3), np.float32), "pcm16", "channels"),
        (np.zeros(3, np.int32), "pcm16", "int32"),
        (np.zeros(3, np.float32), "mulaw", "mulaw"),
        (np.array([0, np.nan], np.float32), "pcm16", "finite"),
    ],
)
def test_invalid_arrays(array: Any, encoding: Any, fault: str) -> None:
    async def scenario() -> None:
        async with serving() as server, Client(server.url).stream(encoding=encoding) as stream:
            with pytest.raises(BadInput, match=fault):
                await stream.send(array)

    run_alone(scenario())


def test_bad_urls_and_encodings() -> None:
    for url in ("localhost:8000", "ftp://localhost", "ws://", ""):
        with pytest.raises(BadInput, match="URL"):
            Client(url)
    with pytest.raises(BadInput, match="opus"):
        Client("ws://localhost").stream(encoding="opus")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("script", "kind", "code"),
    [
        (Script(first=Error(message="full", code="busy", retry_after=3)), ServerBusy, "busy"),
        (Script(first=Error(message="which?", code="unknown_model", hint="tiny")), ServerError, "unknown_model"),
        (Script(first=Failed(seq=1, code="engine_failed", message="out")), StreamFailed, "engine_failed"),
        (Script(first=b"hello"), BadMessage, "bad_message"),
        (Script(status=503, body=b'{"error": {"code": "busy", "message": "full"}}'), ServerBusy, "busy"),
        (Script(status=503), CannotConnect, "cannot_connect"),
        (Script(status=404, body=b"not here"), ServerError, "http_404"),
    ],
)
def test_refusal_is_raised(script: Script, kind: type[ServerError], code: str) -> None:
    async def scenario() -> None:
        async with serving(script) as server:
            with pytest.raises(kind) as caught:
                async with Client(server.url).stream():
                    pass
        assert caught.value.code == code
        if isinstance(script.first, Error):
            first = script.first
            assert (caught.value.message, caught.value.hint) == (first.message, first.hint)
            assert caught.value.retry_after == first.retry_after

    run_alone(scenario())


def test_unreachable_server() -> None:
    async def scenario() -> None:
        async with serving() as server:
            pass
        with pytest.raises(CannotConnect, match=server.url):
            async with Client(server.url).stream():
                pass

    run_alone(scenario())


def test_server_that_sends_nothing() -> None:
    left = asyncio.Event()

    async def send_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        left.set()

    async def scenario() -> None:
        async with await asyncio.start_server(send_nothing, "127.0.0.1") as silent:
            port = silent.sockets[0].getsockname()[1]
            with pytest.raises(CannotConnect, match="did not answer"):
                async with Client(f"ws://127.0.0.1:{port}", open_timeout=0.1).stream():
                    pass
            await left.wait()

    run_alone(scenario())


@pytest.mark.parametrize(
    ("later", "kind", "code"),
    [
        (
            Failed(seq=9, code="engine_failed", message="gone", hint="again", retry_after=1),
            StreamFailed,
            "engine_failed",
        ),
        (Error(message="what?", code="bad_audio"), ServerError, "bad_audio"),
        (b"garbage", BadMessage, "bad_message"),
        (b'{"type": "partial", "seq": "one"}', BadMessage, "bad_message"),
        (b'{"type": "received", "received": 1000000}', BadMessage, "bad_message"),
    ],
)
def test_stream_that_the_server_fails(later: FromServer | bytes, kind: type[ServerError], code: str) -> None:
    async def scenario() -> None:
        async with serving(Script(later=later)) as server, Client(server.url).stream() as stream:
            await stream.send(speech(1)[:10])
            for _ in range(2):  # the error is raised each time
                with pytest.raises(kind) as caught:
                    await read_all(stream)
                assert caught.value.code == code
            with pytest.raises(kind):
                await stream.send(b"more")
            assert server.connections == 1

    run_alone(scenario())


def test_messages_of_unknown_type_are_skipped(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        later = b'{"type": "mood", "seq": 1, "value": "good"}'
        async with serving(Script(later=later)) as server, Client(server.url).stream() as stream:
            await stream.send(speech(1))
            await stream.close()
            assert [type(event) for event in await read_all(stream)] == [Partial, Final, Finished]

    run_alone(scenario())
    assert "'mood'" in caplog.text


def test_nothing_is_accepted_after_close() -> None:
    async def scenario() -> None:
        async with serving() as server, Client(server.url).stream() as stream:
            await stream.close()
            await stream.close()
            with pytest.raises(StreamClosed):
                await stream.send(b"more")
            with pytest.raises(StreamClosed):
                await stream.finalize()
            assert [type(event) for event in await read_all(stream)] == [Finished]
            assert await read_all(stream) == []

    run_alone(scenario())


def test_exiting_early_cancels_the_stream() -> None:
    async def scenario() -> None:
        async with serving() as server:
            async with Client(server.url).stream() as stream:
                await stream.send(speech(3))
                assert isinstance(await anext(stream), Partial)
            await until(lambda: server.heard.requests)
            assert isinstance(server.heard.requests[0], Cancel)
            with pytest.raises(StreamClosed):
                await stream.send(b"more")

    run_alone(scenario())


@pytest.mark.parametrize("where", ["opening", "reading", "sending"])
def test_task_cancellation(where: str) -> None:
    async def use(url: str) -> None:
        async with Client(url).stream() as stream:
            if where == "reading":
                await read_all(stream)
            while True:
                await stream.send(bytes(1 << 20))

    async def scenario() -> None:
        script = Script(acknowledge=0, status=None)
        async with serving(script) as server:
            using = asyncio.create_task(use(server.url))
            while not (server.connections if where == "opening" else server.streams):
                await asyncio.sleep(0)
            using.cancel()
            await asyncio.wait([using])
            assert using.cancelled()

    run_alone(scenario())


def test_send_waits_while_nothing_is_acknowledged() -> None:
    """The buffer holds the audio of the resume timeout and 10 s more."""

    async def scenario() -> None:
        script = Script(acknowledge=0, resume_seconds=2)
        async with serving(script) as server, Client(server.url).stream() as stream:
            second = bytes(32000)
            for part in [second] * 11 + [bytes(31000)]:
                await stream.send(part)
            waiting = asyncio.create_task(stream.send(second))
            await until(lambda: len(server.heard.audio) >= 11 * 32000 + 31000)
            assert not waiting.done()
            waiting.cancel()  # has sent nothing
            await asyncio.wait([waiting])
            script.acknowledge = 1
            await stream.finalize()  # fits in, and makes the server acknowledge everything
            await stream.send(second)
            await stream.close()
            await read_all(stream)
            assert len(server.heard.audio) == 12 * 32000 + 31000

    run_alone(scenario())


def test_unread_events_are_bounded() -> None:
    async def scenario() -> None:
        async with serving() as server, Client(server.url).stream() as stream:
            stream._events.max_events = 5
            await stream.send(speech(6))
            await until(lambda: stream._events.is_over)
            assert [type(await anext(stream)) for _ in range(5)] == [Partial] * 5
            with pytest.raises(ReaderTooSlow, match="5 events"):
                await anext(stream)

    run_alone(scenario())


def test_packets_have_whole_samples() -> None:
    async def scenario() -> None:
        async with serving() as server, Client(server.url).stream(channels=3) as stream:
            audio = speech(3000)
            await stream.send(audio)
            await stream.close()
            await read_all(stream)
            assert bytes(server.heard.audio) == audio
            assert len(server.heard.words) == len(audio) // WORD

    run_alone(scenario())
