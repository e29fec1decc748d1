"""A recording sent at once, at every door, before an engine that does nothing for a while: nothing is lost, and the
connection lives."""

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
from tests.protocols.running_servers import RATE, Standing, standing
from tests.protocols.test_wyoming import chunk, frame
from tests.waiting import until

SECONDS = 150
"""Far more than the engine is given ahead, and than is kept in memory."""
RAMP = (np.arange(SECONDS * RATE) % 20_011 - 10_000).astype("<i2")
"""No part of it is like another."""
PCM = RAMP.tobytes()
SAMPLES = RAMP.astype(np.float32) / 32_768
MOST_AHEAD = 26 * RATE
"""Samples of one stream that the engine may have been given."""


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[begin : begin + size] for begin in range(0, len(data), size)]


def base64ed(data: bytes) -> str:
    return base64.b64encode(data).decode()


def times_full() -> float:
    """How often there was no room for audio; it is counted in this process."""
    return float(metrics.REFUSED.labels("backlog_full")._value.get())


async def at_socket(
    place: Standing, path: str, said: list[bytes | str], first: list[bytes | str] | None = None, *, fills: bool = False
) -> tuple[list[Any], ClientConnection]:
    """Says all of it, then pings, and is answered though nothing is heard yet; what it is told then, to the end.

    `fills`: it is more than there is room for, and nothing is heard before that is known.
    """
    told: list[Any] = []
    before = times_full()
    async with connect(place.url(path), compression=None, max_size=None) as socket:

        async def read() -> None:
            try:
                async for message in socket:
                    told.append(message)
            except ConnectionClosed:
                pass

        reading = asyncio.create_task(read())
        for message in [*(first or []), *said]:
            await socket.send(message)
        for _ in range(3):
            await (await socket.ping())
        assert not socket.close_code
        if fills:
            await until(lambda: times_full() > before)
        place.engine.let_go()
        await reading
    return told, socket


Speak = Callable[[Standing], Awaitable[None]]


async def native(place: Standing) -> None:
    told, socket = await at_socket(place, "/v1/stream?events=true", [*pieces(PCM, 6_400), '{"type": "close"}'])
    assert (json.loads(told[-1])["type"], json.loads(told[-1])["seconds"]) == ("finished", SECONDS)
    assert socket.close_code == 1000


async def native_in_one_message(place: Standing) -> None:
    told, _ = await at_socket(place, "/v1/stream?events=true", [PCM, '{"type": "close"}'])
    assert json.loads(told[-1])["seconds"] == SECONDS


async def native_json(place: Standing) -> None:
    said = [json.dumps({"type": "audio", "data": base64ed(piece)}) for piece in pieces(PCM, 32_000)]
    told, _ = await at_socket(place, "/v1/stream?events=true", [*said, '{"type": "close"}'])
    assert json.loads(told[-1])["seconds"] == SECONDS


async def native_msgpack(place: Standing) -> None:
    encode = msgspec.msgpack.encode
    said = [encode({"type": "audio", "data": piece}) for piece in pieces(PCM, 100_000)]
    told, _ = await at_socket(place, "/v1/stream?events=true&format=msgpack", [*said, encode({"type": "close"})])
    assert msgspec.msgpack.decode(told[-1])["seconds"] == SECONDS


async def native_container(place: Standing) -> None:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(PCM)
    said = [*pieces(made.getvalue(), 10_000), '{"type": "close"}']
    told, _ = await at_socket(place, "/v1/stream?events=true&encoding=container", said)
    assert json.loads(told[-1])["seconds"] == SECONDS


async def marker(place: Standing) -> None:
    told: list[str] = []
    async with connect(place.url("/ws"), compression=None) as socket:
        for piece in pieces(PCM, 6_400):
            await socket.send(piece)
        await socket.send("END")
        await (await socket.ping())
        place.engine.let_go()
        while not told or told[-1] != "END":
            told.append(str(await socket.recv()))


async def parakeet(place: Standing) -> None:
    _, socket = await at_socket(place, "/v3/stream?sample_rate=16000", [*pieces(PCM, 1_000), "finalize"])
    assert (socket.close_code, socket.close_reason) == (1000, "stream_complete")


async def deepgram(place: Standing) -> None:
    """In order: a Finalize in the middle is answered with the place where it stood."""
    half = len(PCM) // 2
    said = [*pieces(PCM[:half], 8_000), '{"type": "Finalize"}', *pieces(PCM[half:], 8_000), '{"type": "CloseStream"}']
    told, socket = await at_socket(place, "/v1/listen?encoding=linear16&sample_rate=16000", said)
    heard = [json.loads(message) for message in told]
    (finalized,) = [message for message in heard if message.get("from_finalize")]
    assert finalized["start"] + finalized["duration"] == SECONDS / 2
    assert (heard[-1]["type"], heard[-1]["duration"]) == ("Metadata", SECONDS)
    assert socket.close_code == 1000


async def deepgram_turns(place: Standing) -> None:
    said = [*pieces(PCM, 2_560), '{"type": "CloseStream"}']
    told, socket = await at_socket(place, "/v2/listen?model=flux&encoding=linear16&sample_rate=16000", said)
    assert json.loads(told[0])["type"] == "Connected"
    assert socket.close_code == 1000


async def realtime(place: Standing) -> None:
    """Whose audio has 24,000 samples a second, so that what is heard are not the very samples."""
    said = [json.dumps({"type": "input_audio_buffer.append", "audio": base64ed(piece)}) for piece in pieces(PCM, 9_600)]
    session = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
    async with connect(place.url("/v1/realtime?intent=transcription"), compression=None, max_size=None) as socket:
        await socket.send(json.dumps({"type": "session.update", "session": session}))
        for message in [*said, '{"type": "input_audio_buffer.commit"}']:
            await socket.send(message)
        await (await socket.ping())
        place.engine.let_go()
        while json.loads(await socket.recv())["type"] != "input_audio_buffer.committed":
            pass


async def nim(place: Standing) -> None:
    said = [json.dumps({"type": "input_audio_buffer.append", "audio": base64ed(piece)}) for piece in pieces(PCM, 3_200)]
    said = [message for append in said for message in (append, '{"type": "input_audio_buffer.commit"}')]
    async with connect(place.url("/v1/realtime?dialect=nim"), compression=None, max_size=None) as socket:
        reading = asyncio.create_task(_until_last(socket))
        for message in [*said, '{"type": "input_audio_buffer.done"}']:
            await socket.send(message)
        await (await socket.ping())
        place.engine.let_go()
        assert (await reading)["usage"]["seconds"] == SECONDS


async def _until_last(socket: ClientConnection) -> Any:
    while not (told := json.loads(await socket.recv())).get("is_last_result"):
        pass
    return told


async def lines(place: Standing) -> None:
    """One who reads nothing before all is said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.ports.tcp, limit=2**24)
    writer.write(b'{"type": "config", "events": true}\n')
    for piece in pieces(PCM, 48_000):
        writer.write(json.dumps({"type": "audio", "data": base64ed(piece)}).encode() + b"\n")
        await writer.drain()
    writer.write(b'{"type": "close"}\n')
    writer.write_eof()
    await writer.drain()
    while sum(place.doors.live._streams[token].received_bytes for token in place.doors.live._streams) < len(PCM):
        await asyncio.sleep(0.01)
    place.engine.let_go()
    *_, last = (await reader.read()).splitlines()
    assert json.loads(last)["seconds"] == SECONDS
    writer.close()


async def wyoming(place: Standing) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.ports.wyoming, limit=2**24)
    for said in (frame("audio-start", {"rate": RATE, "width": 2, "channels": 1}), *map(chunk, pieces(PCM, 2**20))):
        writer.write(said)
        await writer.drain()
    writer.write(frame("audio-stop"))
    await writer.drain()
    place.engine.let_go()
    told = b""
    while b"transcript-stop" not in told:
        told += await reader.readline()
    writer.close()


async def riva(place: Standing) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield configured(RecognitionConfig(sample_rate_hertz=RATE))
        for piece in pieces(PCM, 3_200):
            yield audio(piece)
        place.engine.let_go()

    async with grpc.aio.insecure_channel(f"127.0.0.1:{place.ports.grpc}") as channel:
        call = Riva(channel).stream(requests())
        async for _ in call:
            pass
        assert await call.code() == grpc.StatusCode.OK


EXACT: list[Speak] = [
    *(native, native_in_one_message, native_json, native_msgpack, native_container, marker, parakeet, deepgram),
    *(deepgram_turns, lines, wyoming, riva),
]


@pytest.mark.parametrize("speak", EXACT, ids=lambda speak: speak.__name__)
def test_what_is_sent_at_once_is_heard_to_the_sample(speak: Speak) -> None:
    heard = standing(speak)
    np.testing.assert_array_equal(heard.samples_of(1), SAMPLES)
    assert heard.most_ahead <= MOST_AHEAD


@pytest.mark.parametrize(("speak", "rate"), [(realtime, 24_000), (nim, RATE)], ids=["openai", "nim"])
def test_what_is_sent_at_once_in_realtime(speak: Speak, rate: int) -> None:
    heard = standing(speak)
    assert len(heard.samples_of(1)) == len(SAMPLES) * RATE // rate
    assert heard.most_ahead <= MOST_AHEAD


TINY_PACKETS = PCM[:20_000]


async def _tiny(place: Standing, path: str, end: str) -> None:
    place.engine.let_go()
    async with connect(place.url(path), compression=None) as socket:
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
def test_packets_of_a_byte_are_put_together(path: str, end: str) -> None:
    heard = standing(lambda place: _tiny(place, path, end))
    np.testing.assert_array_equal(heard.samples_of(1), SAMPLES[: len(TINY_PACKETS) // 2])
    assert len(heard.of(engine.Audio)) < len(TINY_PACKETS) / 20


@pytest.mark.parametrize("rest", [b"", b"x"], ids=["whole", "half a sample"])
def test_lines_of_a_byte(rest: bytes) -> None:
    async def speak(place: Standing) -> None:
        place.engine.let_go()
        reader, writer = await asyncio.open_connection("127.0.0.1", place.ports.tcp)
        for byte in TINY_PACKETS[:4_000] + rest:
            writer.write(b'{"type": "audio", "data": "%s"}\n' % base64.b64encode(bytes([byte])))
        writer.write(b'{"type": "close"}\n')
        await reader.read()
        writer.close()

    heard = standing(speak)
    np.testing.assert_array_equal(heard.samples_of(1), SAMPLES[:2_000])
    assert len(heard.of(engine.Audio)) < 400


def test_a_crash_in_the_middle_loses_nothing() -> None:
    async def speak(place: Standing) -> None:
        async with connect(place.url("/v1/stream?events=true"), compression=None) as socket:
            for piece in pieces(PCM, 32_000):
                await socket.send(piece)
            await socket.send('{"type": "close"}')
            await (await socket.ping())
            number = next(iter(place.engine.receivers))
            place.engine.say(engine.StreamTokens(number, (), 10.0))
            await asyncio.sleep(0)
            begun = len(place.engine.of(engine.Audio))
            assert begun
            place.engine.restart()
            first = 8.96 * RATE  # a second before what is worked in, where a chunk begins
            again = place.engine.samples_of(number)
            np.testing.assert_array_equal(again, SAMPLES[round(first) :][: len(again)])
            place.engine.let_go()
            async for message in socket:
                last = json.loads(message)
            assert (last["type"], last["seconds"]) == ("finished", SECONDS)
            np.testing.assert_array_equal(place.engine.samples_of(number), SAMPLES[round(first) :])

    standing(speak)


@pytest.mark.parametrize(
    "path", ["/v1/stream?events=true", "/v1/stream", "/v1/listen?encoding=linear16&sample_rate=16000", "/ws"]
)
@pytest.mark.parametrize("is_rude", [False, True])
def test_who_leaves_in_the_middle_leaves_nothing(path: str, is_rude: bool) -> None:
    """No stream, no byte of what it sent, no task and no file: `standing` looks."""

    async def speak(place: Standing) -> None:
        before = _files()
        socket = await connect(place.url(path), compression=None)
        for piece in pieces(PCM, 100_000):
            await socket.send(piece)
        await (await socket.ping())
        assert place.doors.live.spool_space.used_bytes
        assert _files() > before
        if is_rude:
            socket.transport.abort()
        else:
            await socket.close()
        while place.doors.live.spool_space.used_bytes:
            await asyncio.sleep(0.01)
        assert _files() == before

    standing(speak, resume_seconds=0.2)


def _files() -> int:
    """Temporary files that are open: they have no name."""
    return sum("deleted" in os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


def test_a_client_that_comes_back_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that came is kept, so there is nothing that it has to send again."""

    async def speak(place: Standing) -> None:
        half = len(PCM) // 2
        first = await connect(place.url("/v1/stream?events=true"), compression=None)
        for piece in pieces(PCM[:half], 6_400):
            await first.send(piece)
        ready = json.loads(await first.recv())
        await (await first.ping())
        first.transport.abort()
        async with connect(place.url("/v1/stream"), compression=None) as second:
            await second.send(json.dumps({"type": "resume", "token": ready["token"]}))
            back = json.loads(await second.recv())
            assert (back["type"], back["received"]) == ("ready", half)
            for piece in pieces(PCM[half:], 6_400):
                await second.send(piece)
            await second.send('{"type": "close"}')
            await (await second.ping())
            place.engine.let_go()
            async for message in second:
                last = json.loads(message)
        assert (last["type"], last["seconds"]) == ("finished", SECONDS)

    np.testing.assert_array_equal(standing(speak).samples_of(1), SAMPLES)


SMALL_ROOM = {"max_backlog_mb": 3.0}


async def _too_much(place: Standing, path: str) -> tuple[list[Any], ClientConnection]:
    """What it is told, the engine being let go when there is no room left."""
    told, socket = await at_socket(place, path, [*pieces(PCM, 32_000)], fills=True)
    number = next(iter(place.engine.heard))
    heard = place.engine.samples_of(number)
    assert len(heard) >= 3e6 / 2
    np.testing.assert_array_equal(heard, SAMPLES[: len(heard)])
    return [json.loads(message) for message in told], socket


def test_more_than_there_is_room_for_is_told() -> None:
    """What was taken is heard, then the stream fails, in the form of each protocol; and it is counted."""

    async def native(place: Standing) -> None:
        told, socket = await _too_much(place, "/v1/stream?events=true")
        (warned,) = [message for message in told if message["type"] == "warning"]
        assert warned["code"] == "backlog_full"
        assert (told[-1]["type"], told[-1]["code"]) == ("failed", "backlog_full")
        assert "3 MB" in told[-1]["message"]
        assert "max_backlog_mb" in told[-1]["hint"]
        assert told[-1]["retry_after"]
        assert socket.close_code == 1013
        async with httpx2.AsyncClient() as client:
            text = (await client.get(f"http://127.0.0.1:{place.ports.web}/metrics")).text
        assert 'conure_refused_total{reason="backlog_full"}' in text
        assert 'conure_streams_ended_total{end="backlog_full"}' in text
        assert "conure_backlog_bytes 0.0" in text

    async def deepgram(place: Standing) -> None:
        told, socket = await _too_much(place, "/v1/listen?encoding=linear16&sample_rate=16000")
        assert (told[-1]["type"], told[-1]["variant"]) == ("Error", "backlog_full")
        assert socket.close_code == 1013

    async def parakeet(place: Standing) -> None:
        _, socket = await at_socket(place, "/v3/stream", [*pieces(PCM, 32_000)], fills=True)
        assert socket.close_code == 1013
        assert (socket.close_reason or "").startswith("backlog_full")

    async def riva(place: Standing) -> None:
        before = times_full()

        async def requests() -> AsyncIterator[Any]:
            yield configured(RecognitionConfig(sample_rate_hertz=RATE))
            for piece in pieces(PCM, 32_000):
                yield audio(piece)
            await until(lambda: times_full() > before)
            place.engine.let_go()

        async with grpc.aio.insecure_channel(f"127.0.0.1:{place.ports.grpc}") as channel:
            call = Riva(channel).stream(requests())
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                async for _ in call:
                    pass
            assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    for speak in (native, deepgram, parakeet, riva):
        standing(speak, **SMALL_ROOM)


def test_channels_that_are_told_apart_wait_together() -> None:
    stereo = np.stack([RAMP, RAMP[::-1]])[:, : 120 * RATE]

    async def speak(place: Standing) -> None:
        path = "/v1/listen?encoding=linear16&sample_rate=16000&channels=2&multichannel=true"
        said = [*pieces(stereo.T.tobytes(), 10_001), '{"type": "CloseStream"}']
        told, _ = await at_socket(place, path, said)
        assert json.loads(told[-1])["duration"] == 120

    heard = standing(speak)
    for number, row in enumerate(stereo, 1):
        np.testing.assert_array_equal(heard.samples_of(number), row.astype(np.float32) / 32_768)
    assert heard.most_ahead <= MOST_AHEAD


def test_who_is_still_to_be_heard_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conure.protocols.deepgram.listen_socket._Listener.idle", 0.2)

    async def speak(place: Standing) -> None:
        async with connect(place.url("/v1/listen?encoding=linear16&sample_rate=16000"), compression=None) as socket:
            for piece in pieces(PCM, 32_000):
                await socket.send(piece)
            for _ in range(5):
                await asyncio.sleep(0.2)
                await (await socket.ping())
            place.engine.let_go()
            with suppress(ConnectionClosed):
                async for _ in socket:
                    pass
            assert (socket.close_code, (socket.close_reason or "")[:8]) == (1011, "NET-0001")

    np.testing.assert_array_equal(standing(speak).samples_of(1), SAMPLES)


def test_a_door_that_is_busy_answers_pings() -> None:
    """Another session asked for in the middle waits until all before it is told."""

    async def speak(place: Standing) -> None:
        said = [
            json.dumps({"type": "input_audio_buffer.append", "audio": base64ed(piece)})
            for piece in pieces(PCM[: 60 * 32_000], 32_000)
        ]
        other = {"type": "transcription", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}
        update = json.dumps({"type": "session.update", "session": other})
        async with connect(place.url("/v1/realtime?intent=transcription"), compression=None, max_size=None) as socket:
            for message in [*said, update, *said]:
                await socket.send(message)
            await (await socket.ping())
            assert len(place.engine.receivers) == 1
            place.engine.let_go()
            while len(place.engine.of(engine.Open)) < 2:
                await asyncio.sleep(0.01)
            await (await socket.ping())

    standing(speak)


def test_our_own_client_is_told_what_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps less than it sends here, so it waits for receipts, which come though nothing is heard yet."""
    monkeypatch.setattr("conure.protocols.native.connection.RECEIPT_INTERVAL", 0.02)

    async def speak(place: Standing) -> None:
        async with Client(f"ws://127.0.0.1:{place.ports.web}").stream() as stream:
            await stream.send(PCM)
            await stream.close()
            place.engine.let_go()
            async for event in stream:
                last = event
        assert isinstance(last, Finished)
        assert last.seconds == SECONDS

    np.testing.assert_array_equal(standing(speak).samples_of(1), SAMPLES)
