"""Audio sent faster than real time to each protocol while the engine is paused: nothing is lost, and connections stay
open."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx2
import msgspec
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from conure import metrics
from conure.client import Client, Finished
from conure.engine import messages as engine
from conure.protocols.riva.riva_asr_pb2 import RecognitionConfig
from tests.protocols.riva.calling import Riva, audio, configured
from tests.protocols.running_servers import RATE, RunningServers, run_servers
from tests.protocols.test_wyoming import chunk, frame
from tests.waiting import until

SECONDS = 150
"""Much more than the engine's prefetch and the buffers in memory."""
RAMP = (np.arange(SECONDS * RATE) % 20_011 - 10_000).astype("<i2")
"""All parts of it are different."""
PCM = RAMP.tobytes()
SAMPLES = RAMP.astype(np.float32) / 32_768
MAX_AHEAD = 26 * RATE
"""Samples of one stream that the engine may have received."""


def split(data: bytes, size: int) -> list[bytes]:
    return [data[begin : begin + size] for begin in range(0, len(data), size)]


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def backlog_full_count() -> float:
    """Value of the metric of full backlogs, in this process."""
    return float(metrics.REFUSED.labels("backlog_full")._value.get())


async def send_all(
    running: RunningServers,
    path: str,
    sent: list[bytes | str],
    first: list[bytes | str] | None = None,
    *,
    fills: bool = False,
) -> tuple[list[Any], ClientConnection]:
    """Sends all messages, then a ping, which is answered while the engine is paused. Returns all responses.

    `fills`: the backlog becomes full before the engine resumes.
    """
    response: list[Any] = []
    before = backlog_full_count()
    async with connect(running.url(path), compression=None, max_size=None) as socket:

        async def read() -> None:
            try:
                async for message in socket:
                    response.append(message)
            except ConnectionClosed:
                pass

        reading = asyncio.create_task(read())
        for message in [*(first or []), *sent]:
            await socket.send(message)
        for _ in range(3):
            await (await socket.ping())
        assert not socket.close_code
        if fills:
            await until(lambda: backlog_full_count() > before)
        running.engine.resume()
        await reading
    return response, socket


SendAudio = Callable[[RunningServers], Awaitable[None]]


async def native(running: RunningServers) -> None:
    responses, socket = await send_all(running, "/v1/stream?events=true", [*split(PCM, 6_400), '{"type": "close"}'])
    assert (json.loads(responses[-1])["type"], json.loads(responses[-1])["seconds"]) == ("finished", SECONDS)
    assert socket.close_code == 1000


async def native_in_one_message(running: RunningServers) -> None:
    responses, _ = await send_all(running, "/v1/stream?events=true", [PCM, '{"type": "close"}'])
    assert json.loads(responses[-1])["seconds"] == SECONDS


async def native_json(running: RunningServers) -> None:
    sent = [json.dumps({"type": "audio", "data": to_base64(piece)}) for piece in split(PCM, 32_000)]
    responses, _ = await send_all(running, "/v1/stream?events=true", [*sent, '{"type": "close"}'])
    assert json.loads(responses[-1])["seconds"] == SECONDS


async def native_msgpack(running: RunningServers) -> None:
    encode = msgspec.msgpack.encode
    sent = [encode({"type": "audio", "data": piece}) for piece in split(PCM, 100_000)]
    responses, _ = await send_all(running, "/v1/stream?events=true&format=msgpack", [*sent, encode({"type": "close"})])
    assert msgspec.msgpack.decode(responses[-1])["seconds"] == SECONDS


async def native_container(running: RunningServers) -> None:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(PCM)
    sent = [*split(made.getvalue(), 10_000), '{"type": "close"}']
    responses, _ = await send_all(running, "/v1/stream?events=true&encoding=container", sent)
    assert json.loads(responses[-1])["seconds"] == SECONDS


async def marker(running: RunningServers) -> None:
    responses: list[str] = []
    async with connect(running.url("/ws"), compression=None) as socket:
        for piece in split(PCM, 6_400):
            await socket.send(piece)
        await socket.send("END")
        await (await socket.ping())
        running.engine.resume()
        while not responses or responses[-1] != "END":
            responses.append(str(await socket.recv()))


async def parakeet(running: RunningServers) -> None:
    _, socket = await send_all(running, "/v3/stream?sample_rate=16000", [*split(PCM, 1_000), "finalize"])
    assert (socket.close_code, socket.close_reason) == (1000, "stream_complete")


async def deepgram(running: RunningServers) -> None:
    """Requests stay in order: a Finalize between packets is answered at its position."""
    half = len(PCM) // 2
    sent = [*split(PCM[:half], 8_000), '{"type": "Finalize"}', *split(PCM[half:], 8_000), '{"type": "CloseStream"}']
    response, socket = await send_all(running, "/v1/listen?encoding=linear16&sample_rate=16000", sent)
    received = [json.loads(message) for message in response]
    (finalized,) = [message for message in received if message.get("from_finalize")]
    assert finalized["start"] + finalized["duration"] == SECONDS / 2
    assert (received[-1]["type"], received[-1]["duration"]) == ("Metadata", SECONDS)
    assert socket.close_code == 1000


async def deepgram_turns(running: RunningServers) -> None:
    sent = [*split(PCM, 2_560), '{"type": "CloseStream"}']
    responses, socket = await send_all(running, "/v2/listen?model=flux&encoding=linear16&sample_rate=16000", sent)
    assert json.loads(responses[0])["type"] == "Connected"
    assert socket.close_code == 1000


async def realtime(running: RunningServers) -> None:
    """The audio has 24,000 samples per second, so that the engine gets resampled audio."""
    sent = [json.dumps({"type": "input_audio_buffer.append", "audio": to_base64(piece)}) for piece in split(PCM, 9_600)]
    session = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
    async with connect(running.url("/v1/realtime?intent=transcription"), compression=None, max_size=None) as socket:
        await socket.send(json.dumps({"type": "session.update", "session": session}))
        for message in [*sent, '{"type": "input_audio_buffer.commit"}']:
            await socket.send(message)
        await (await socket.ping())
        running.engine.resume()
        while json.loads(await socket.recv())["type"] != "input_audio_buffer.committed":
            pass


async def nim(running: RunningServers) -> None:
    sent = [json.dumps({"type": "input_audio_buffer.append", "audio": to_base64(piece)}) for piece in split(PCM, 3_200)]
    sent = [message for append in sent for message in (append, '{"type": "input_audio_buffer.commit"}')]
    async with connect(running.url("/v1/realtime?dialect=nim"), compression=None, max_size=None) as socket:
        reading = asyncio.create_task(_read_until_last(socket))
        for message in [*sent, '{"type": "input_audio_buffer.done"}']:
            await socket.send(message)
        await (await socket.ping())
        running.engine.resume()
        assert (await reading)["usage"]["seconds"] == SECONDS


async def _read_until_last(socket: ClientConnection) -> Any:
    while not (message := json.loads(await socket.recv())).get("is_last_result"):
        pass
    return message


async def lines(running: RunningServers) -> None:
    """The client reads nothing before it has sent everything."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.ports.tcp, limit=2**24)
    writer.write(b'{"type": "config", "events": true}\n')
    for piece in split(PCM, 48_000):
        writer.write(json.dumps({"type": "audio", "data": to_base64(piece)}).encode() + b"\n")
        await writer.drain()
    writer.write(b'{"type": "close"}\n')
    writer.write_eof()
    await writer.drain()
    while sum(running.servers.live._streams[token].received_bytes for token in running.servers.live._streams) < len(
        PCM
    ):
        await asyncio.sleep(0.01)
    running.engine.resume()
    *_, last = (await reader.read()).splitlines()
    assert json.loads(last)["seconds"] == SECONDS
    writer.close()


async def wyoming(running: RunningServers) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.ports.wyoming, limit=2**24)
    for sent in (frame("audio-start", {"rate": RATE, "width": 2, "channels": 1}), *map(chunk, split(PCM, 2**20))):
        writer.write(sent)
        await writer.drain()
    writer.write(frame("audio-stop"))
    await writer.drain()
    running.engine.resume()
    responses = b""
    while b"transcript-stop" not in responses:
        responses += await reader.readline()
    writer.close()


async def riva(running: RunningServers) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield configured(RecognitionConfig(sample_rate_hertz=RATE))
        for piece in split(PCM, 3_200):
            yield audio(piece)
        running.engine.resume()

    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.ports.grpc}") as channel:
        call = Riva(channel).stream(requests())
        async for _ in call:
            pass
        assert await call.code() == grpc.StatusCode.OK


EXACT: list[SendAudio] = [
    *(native, native_in_one_message, native_json, native_msgpack, native_container, marker, parakeet, deepgram),
    *(deepgram_turns, lines, wyoming, riva),
]


@pytest.mark.parametrize("send_audio", EXACT, ids=lambda send_audio: send_audio.__name__)
def test_audio_sent_at_once_reaches_the_engine_unchanged(send_audio: SendAudio) -> None:
    received = run_servers(send_audio)
    np.testing.assert_array_equal(received.samples_of(1), SAMPLES)
    assert received.max_ahead <= MAX_AHEAD


@pytest.mark.parametrize(("send_audio", "rate"), [(realtime, 24_000), (nim, RATE)], ids=["openai", "nim"])
def test_audio_sent_at_once_over_realtime(send_audio: SendAudio, rate: int) -> None:
    received = run_servers(send_audio)
    assert len(received.samples_of(1)) == len(SAMPLES) * RATE // rate
    assert received.max_ahead <= MAX_AHEAD


TINY_PACKETS = PCM[:20_000]


async def _tiny(running: RunningServers, path: str, end: str) -> None:
    running.engine.resume()
    async with connect(running.url(path), compression=None) as socket:
        for begin in range(len(TINY_PACKETS)):
            await socket.send(TINY_PACKETS[begin : begin + 1])
        await socket.send(end)
        async for message in socket:
            if message == end:
                break


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("/v1/stream", '{"type": "close"}'),
        ("/v1/listen?encoding=linear16&sample_rate=16000", '{"type": "CloseStream"}'),
        ("/v2/listen?encoding=linear16&sample_rate=16000", '{"type": "CloseStream"}'),
        ("/v3/stream", "finalize"),
        ("/ws", "END"),
    ],
)
def test_packets_of_one_byte_are_joined(path: str, end: str) -> None:
    received = run_servers(lambda running: _tiny(running, path, end))
    np.testing.assert_array_equal(received.samples_of(1), SAMPLES[: len(TINY_PACKETS) // 2])
    assert len(received.of(engine.Audio)) < len(TINY_PACKETS) / 20


@pytest.mark.parametrize("rest", [b"", b"x"], ids=["whole", "half a sample"])
def test_lines_with_one_byte(rest: bytes) -> None:
    async def send_audio(running: RunningServers) -> None:
        running.engine.resume()
        reader, writer = await asyncio.open_connection("127.0.0.1", running.ports.tcp)
        for byte in TINY_PACKETS[:4_000] + rest:
            writer.write(b'{"type": "audio", "data": "%s"}\n' % base64.b64encode(bytes([byte])))
        writer.write(b'{"type": "close"}\n')
        await reader.read()
        writer.close()

    received = run_servers(send_audio)
    np.testing.assert_array_equal(received.samples_of(1), SAMPLES[:2_000])
    assert len(received.of(engine.Audio)) < 400


def test_engine_crash_loses_no_audio() -> None:
    async def send_audio(running: RunningServers) -> None:
        async with connect(running.url("/v1/stream?events=true"), compression=None) as socket:
            for piece in split(PCM, 32_000):
                await socket.send(piece)
            await socket.send('{"type": "close"}')
            await (await socket.ping())
            number = next(iter(running.engine.receivers))
            running.engine.say(engine.StreamTokens(number, (), 10.0))
            await asyncio.sleep(0)
            begun = len(running.engine.of(engine.Audio))
            assert begun
            running.engine.restart()
            first = 8.96 * RATE  # one second before the processed audio, at the start of a chunk
            again = running.engine.samples_of(number)
            np.testing.assert_array_equal(again, SAMPLES[round(first) :][: len(again)])
            running.engine.resume()
            async for message in socket:
                last = json.loads(message)
            assert (last["type"], last["seconds"]) == ("finished", SECONDS)
            np.testing.assert_array_equal(running.engine.samples_of(number), SAMPLES[round(first) :])

    run_servers(send_audio)


@pytest.mark.parametrize(
    "path", ["/v1/stream?events=true", "/v1/stream", "/v1/listen?encoding=linear16&sample_rate=16000", "/ws"]
)
@pytest.mark.parametrize("with_reset", [False, True])
def test_disconnect_releases_everything(path: str, with_reset: bool) -> None:
    """`run_servers` checks that no stream, byte or task is left; the test checks files."""

    async def send_audio(running: RunningServers) -> None:
        before = _open_temporary_files()
        socket = await connect(running.url(path), compression=None)
        for piece in split(PCM, 100_000):
            await socket.send(piece)
        await (await socket.ping())
        assert running.servers.live.spool_space.used_bytes
        assert _open_temporary_files() > before
        if with_reset:
            socket.transport.abort()
        else:
            await socket.close()
        while running.servers.live.spool_space.used_bytes:
            await asyncio.sleep(0.01)
        assert _open_temporary_files() == before

    run_servers(send_audio, resume_seconds=0.2)


def _open_temporary_files() -> int:
    """Number of open temporary files: they have no name."""
    return sum("deleted" in os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


def test_resumed_stream_keeps_its_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server keeps everything it received, so the client need not send it again."""

    async def send_audio(running: RunningServers) -> None:
        half = len(PCM) // 2
        first = await connect(running.url("/v1/stream?events=true"), compression=None)
        for piece in split(PCM[:half], 6_400):
            await first.send(piece)
        ready = json.loads(await first.recv())
        await (await first.ping())
        first.transport.abort()
        async with connect(running.url("/v1/stream"), compression=None) as second:
            await second.send(json.dumps({"type": "resume", "token": ready["token"]}))
            back = json.loads(await second.recv())
            assert (back["type"], back["received"]) == ("ready", half)
            for piece in split(PCM[half:], 6_400):
                await second.send(piece)
            await second.send('{"type": "close"}')
            await (await second.ping())
            running.engine.resume()
            async for message in second:
                last = json.loads(message)
        assert (last["type"], last["seconds"]) == ("finished", SECONDS)

    np.testing.assert_array_equal(run_servers(send_audio).samples_of(1), SAMPLES)


SMALL_BACKLOG = {"max_backlog_mb": 3.0}


async def _send_too_much(running: RunningServers, path: str) -> tuple[list[Any], ClientConnection]:
    """Responses to too much audio; the engine resumes when the backlog is full."""
    response, socket = await send_all(running, path, [*split(PCM, 32_000)], fills=True)
    number = next(iter(running.engine.sample_counts))
    received = running.engine.samples_of(number)
    assert len(received) >= 3e6 / 2
    np.testing.assert_array_equal(received, SAMPLES[: len(received)])
    return [json.loads(message) for message in response], socket


def test_full_backlog_fails_the_stream() -> None:
    """Accepted audio is processed, then the stream fails in the protocol's format, and a metric counts it."""

    async def native(running: RunningServers) -> None:
        response, socket = await _send_too_much(running, "/v1/stream?events=true")
        (warned,) = [message for message in response if message["type"] == "warning"]
        assert warned["code"] == "backlog_full"
        assert (response[-1]["type"], response[-1]["code"]) == ("failed", "backlog_full")
        assert "3 MB" in response[-1]["message"]
        assert "max_backlog_mb" in response[-1]["hint"]
        assert response[-1]["retry_after"]
        assert socket.close_code == 1013
        async with httpx2.AsyncClient() as client:
            text = (await client.get(f"http://127.0.0.1:{running.ports.web}/metrics")).text
        assert 'conure_refused_total{reason="backlog_full"}' in text
        assert 'conure_streams_ended_total{end="backlog_full"}' in text
        assert "conure_backlog_bytes 0.0" in text

    async def deepgram(running: RunningServers) -> None:
        response, socket = await _send_too_much(running, "/v1/listen?encoding=linear16&sample_rate=16000")
        assert (response[-1]["type"], response[-1]["variant"]) == ("Error", "backlog_full")
        assert socket.close_code == 1013

    async def parakeet(running: RunningServers) -> None:
        _, socket = await send_all(running, "/v3/stream", [*split(PCM, 32_000)], fills=True)
        assert socket.close_code == 1013
        assert (socket.close_reason or "").startswith("backlog_full")

    async def riva(running: RunningServers) -> None:
        before = backlog_full_count()

        async def requests() -> AsyncIterator[Any]:
            yield configured(RecognitionConfig(sample_rate_hertz=RATE))
            for piece in split(PCM, 32_000):
                yield audio(piece)
            await until(lambda: backlog_full_count() > before)
            running.engine.resume()

        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.ports.grpc}") as channel:
            call = Riva(channel).stream(requests())
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                async for _ in call:
                    pass
            assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    for send_audio in (native, deepgram, parakeet, riva):
        run_servers(send_audio, **SMALL_BACKLOG)


def test_separate_channels_share_the_backlog() -> None:
    stereo = np.stack([RAMP, RAMP[::-1]])[:, : 120 * RATE]

    async def send_audio(running: RunningServers) -> None:
        path = "/v1/listen?encoding=linear16&sample_rate=16000&channels=2&multichannel=true"
        sent = [*split(stereo.T.tobytes(), 10_001), '{"type": "CloseStream"}']
        responses, _ = await send_all(running, path, sent)
        assert json.loads(responses[-1])["duration"] == 120

    received = run_servers(send_audio)
    for number, row in enumerate(stereo, 1):
        np.testing.assert_array_equal(received.samples_of(number), row.astype(np.float32) / 32_768)
    assert received.max_ahead <= MAX_AHEAD


def test_stream_with_backlog_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conure.protocols.deepgram.listen_socket._Listener.idle", 0.2)

    async def send_audio(running: RunningServers) -> None:
        async with connect(running.url("/v1/listen?encoding=linear16&sample_rate=16000"), compression=None) as socket:
            for piece in split(PCM, 32_000):
                await socket.send(piece)
            for _ in range(5):
                await asyncio.sleep(0.2)
                await (await socket.ping())
            running.engine.resume()
            with suppress(ConnectionClosed):
                async for _ in socket:
                    pass
            assert (socket.close_code, (socket.close_reason or "")[:8]) == (1011, "NET-0001")

    np.testing.assert_array_equal(run_servers(send_audio).samples_of(1), SAMPLES)


def test_busy_protocol_answers_pings() -> None:
    """A request for another session waits until all events before it are sent."""

    async def send_audio(running: RunningServers) -> None:
        sent = [
            json.dumps({"type": "input_audio_buffer.append", "audio": to_base64(piece)})
            for piece in split(PCM[: 60 * 32_000], 32_000)
        ]
        other = {"type": "transcription", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}
        update = json.dumps({"type": "session.update", "session": other})
        async with connect(running.url("/v1/realtime?intent=transcription"), compression=None, max_size=None) as socket:
            for message in [*sent, update, *sent]:
                await socket.send(message)
            await (await socket.ping())
            assert len(running.engine.receivers) == 1
            running.engine.resume()
            while len(running.engine.of(engine.Open)) < 2:
                await asyncio.sleep(0.01)
            await (await socket.ping())

    run_servers(send_audio)


def test_client_gets_acknowledgements_during_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its buffer is smaller than the audio, so it waits for acknowledgements; they arrive during the pause."""
    monkeypatch.setattr("conure.protocols.native.connection.RECEIPT_INTERVAL", 0.02)

    async def send_audio(running: RunningServers) -> None:
        async with Client(f"ws://127.0.0.1:{running.ports.web}").stream() as stream:
            await stream.send(PCM)
            await stream.close()
            running.engine.resume()
            async for event in stream:
                last = event
        assert isinstance(last, Finished)
        assert last.seconds == SECONDS

    np.testing.assert_array_equal(run_servers(send_audio).samples_of(1), SAMPLES)
