"""Streams with broken connections: all audio and all events arrive exactly once and in order."""

from __future__ import annotations

import asyncio
import random

import pytest

from conure.client import Client, ConnectionLost, Event, Final, Finished, Marker, Partial, Stream
from conure.client.codec import WireFormat
from conure.client.protocol import Error
from tests.client.scripted_server import Cut, FakeServer, Script, in_packets, serving, speech
from tests.client.test_stream import read_all, run_alone
from tests.waiting import until

PACKET = 40
"""Bytes. Not a multiple of a word, so that connections break inside words."""


async def send_speech(stream: Stream, words: int, *, finalize_after: int | None = None) -> list[Event]:
    """Sends and reads concurrently; returns the events."""
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read_all(stream))
        for number, packet in enumerate(in_packets(speech(words), PACKET)):
            await stream.send(packet)
            if number == finalize_after:
                await stream.finalize()
            if number % 3 == 0:
                await asyncio.sleep(0)
        await stream.close()
    return reading.result()


def check_events(server: FakeServer, events: list[Event], words: int) -> None:
    heard = server.heard
    assert bytes(heard.audio) == speech(words)
    sent = {event.seq: event for event in heard.events}
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    assert all(sent[event.seq] == event for event in events)
    repeated_events = [event for event in heard.events if event.seq not in {event.seq for event in events}]
    assert all(isinstance(event, Marker) for event in repeated_events)
    markers = [event.id for event in events if isinstance(event, Marker)]
    assert markers == sorted(set(markers))
    finals = " ".join(event.text for event in events if isinstance(event, Final))
    assert finals.split() == heard.words
    assert [event for event in events if isinstance(event, Finished)] == events[-1:]


@pytest.mark.parametrize("when", ["before", "read", "sent"])
@pytest.mark.parametrize("number", [3, 5, 8, 9, 10, 11, 13, 15, 18])
def test_broken_connection_at_any_message(when: str, number: int) -> None:
    async def scenario() -> None:
        async with serving(Script([Cut(when, number)])) as server, Client(server.url).stream() as stream:
            events = await send_speech(stream, 10, finalize_after=7)
            check_events(server, events, 10)
            assert server.connections == 2
            assert stream.breaks == 1
            assert [event.id for event in events if isinstance(event, Marker)] == [1]

    run_alone(scenario())


@pytest.mark.parametrize("wire", ["binary", "json", "msgpack"])
@pytest.mark.parametrize("seed", range(4))
def test_many_broken_connections(wire: WireFormat, seed: int) -> None:
    async def scenario() -> None:
        rng = random.Random(seed)
        first = Cut(rng.choice(("before", "read", "sent")), rng.randint(3, 20))
        cuts = [Cut(rng.choice(("before", "read", "sent")), rng.randint(2, 12)) for _ in range(6)]
        script = Script([first, *cuts], acknowledge=rng.randint(0, 5))
        async with serving(script) as server, Client(server.url).stream(wire=wire) as stream:
            check_events(server, await send_speech(stream, 40, finalize_after=rng.randrange(60)), 40)
            assert server.connections > 3

    run_alone(scenario())


@pytest.mark.parametrize("when", ["before", "read"])
def test_broken_connection_at_finalize(when: str) -> None:
    """The client cannot know whether the server read the finalize; it gets one marker."""

    async def scenario() -> None:
        script = Script([Cut(when, 4)], acknowledge=1)  # hello, config, audio, finalize
        async with serving(script) as server, Client(server.url).stream() as stream:
            await stream.send(speech(2))
            number = await stream.finalize()
            events = [await anext(stream) for _ in range(4)]
            assert [type(event) for event in events] == [Partial, Partial, Final, Marker]
            assert events[-1].id == number  # type: ignore[union-attr]
            await stream.close()
            assert [type(event) for event in await read_all(stream)] == [Finished]
            assert server.connections == 2

    run_alone(scenario())


def test_finalize_keeps_its_position() -> None:
    """The server has later audio, so it has the finalize, too."""

    async def scenario() -> None:
        script = Script([Cut("read", 5)], acknowledge=0)  # hello, config, audio, finalize, audio
        async with serving(script) as server, Client(server.url).stream() as stream:
            await stream.send(speech(2))
            await stream.finalize()
            await stream.send(speech(2))
            await stream.close()
            finals = [event.text for event in await read_all(stream) if isinstance(event, Final)]
            assert [len(text.split()) for text in finals] == [2, 2]
            assert server.connections == 2
            assert sum(isinstance(event, Marker) for event in server.heard.events) == 1

    run_alone(scenario())


def test_reconnect_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(Script([Cut("read", 4)])) as server, Client(server.url).stream() as stream:
            await send_speech(stream, 4)

    run_alone(scenario())
    assert [record.levelname for record in caplog.records if "resumed after" in record.message] == ["WARNING"]


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (Script(resume_seconds=0), "could not be resumed within 0 s"),
        (Script(refuse_resume=Error(message="no such stream", code="unknown_stream")), "no such stream"),
        (Script(refuse_resume=Error(message="full", code="busy"), resume_seconds=1), "full"),
        (Script(lost_bytes=80, acknowledge=1), "has lost"),
    ],
)
def test_stream_that_cannot_be_resumed(script: Script, fault: str) -> None:
    async def scenario() -> None:
        script.cuts = [Cut("read", 6)]
        async with serving(script) as server, Client(server.url).stream() as stream:
            for _ in range(5):
                await stream.send(speech(1))
            with pytest.raises(ConnectionLost, match=fault):
                await read_all(stream)
            with pytest.raises(ConnectionLost, match=fault):
                await stream.send(speech(1))

    run_alone(scenario())


def test_unavailable_server() -> None:
    async def scenario() -> None:
        async with serving(Script([Cut("read", 5)])) as server, Client(server.url).stream() as stream:
            server.script.status = 502  # from a proxy
            for packet in in_packets(speech(10), PACKET):
                await stream.send(packet)
            await stream.close()
            reading = asyncio.create_task(read_all(stream))
            await until(lambda: server.refused >= 2)
            assert not reading.done()
            server.script.status = None
            check_events(server, await reading, 10)

    run_alone(scenario())


def test_reconnects_without_messages_time_out() -> None:
    """Each connection breaks right after it is opened; the timeout runs from the first break."""

    async def scenario() -> None:
        cuts = [Cut("read", 4)] + [Cut("sent", 1)] * 1000
        script = Script(cuts, resume_seconds=0.4, acknowledge=0)
        async with serving(script) as server, Client(server.url).stream() as stream:
            await stream.send(b"12")
            await stream.send(b"34")
            with pytest.raises(ConnectionLost):
                await read_all(stream)
            assert server.connections > 1

    run_alone(scenario())


def test_exiting_while_reconnecting() -> None:
    async def scenario() -> None:
        script = Script([Cut("read", 3)], refuse_resume=Error(message="full", code="busy", retry_after=5))
        async with serving(script) as server, Client(server.url).stream() as stream:
            await stream.send(speech(1))
            await until(lambda: server.connections >= 2)

    run_alone(scenario())


@pytest.mark.parametrize("when", ["before", "read"])
def test_broken_connection_at_close(when: str) -> None:
    async def scenario() -> None:
        script = Script([Cut(when, 20)])  # hello, config, 16 packets, finalize, close
        async with serving(script) as server, Client(server.url).stream() as stream:
            check_events(server, await send_speech(stream, 10, finalize_after=7), 10)
            assert server.connections == 2

    run_alone(scenario())
