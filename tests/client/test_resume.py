"""Streams whose connections break: all audio arrives once and in order, and so do all events."""

from __future__ import annotations

import asyncio
import random

import pytest

from conure.client import Client, ConnectionLost, Event, Final, Finished, Marker, Partial, Stream
from conure.client.codec import WireFormat
from conure.client.protocol import Error
from tests.client.scripted_server import Cut, FakeServer, Script, in_packets, serving, speech
from tests.client.test_stream import alone, everything
from tests.waiting import until

PACKET = 40
"""Bytes: no whole words, so that breaks fall into them."""


async def dictate(stream: Stream, words: int, *, finalize_after: int | None = None) -> list[Event]:
    """Send and read at once; the events."""
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(everything(stream))
        for number, packet in enumerate(in_packets(speech(words), PACKET)):
            await stream.send(packet)
            if number == finalize_after:
                await stream.finalize()
            if number % 3 == 0:
                await asyncio.sleep(0)
        await stream.close()
    return reading.result()


def check(server: FakeServer, events: list[Event], words: int) -> None:
    heard = server.heard
    assert bytes(heard.audio) == speech(words)
    answered = {event.seq: event for event in heard.events}
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    assert all(answered[event.seq] == event for event in events)
    doubled = [event for event in heard.events if event.seq not in {event.seq for event in events}]
    assert all(isinstance(event, Marker) for event in doubled)
    markers = [event.id for event in events if isinstance(event, Marker)]
    assert markers == sorted(set(markers))
    finals = " ".join(event.text for event in events if isinstance(event, Final))
    assert finals.split() == heard.words
    assert [event for event in events if isinstance(event, Finished)] == events[-1:]


@pytest.mark.parametrize("when", ["before", "read", "sent"])
@pytest.mark.parametrize("number", [3, 5, 8, 9, 10, 11, 13, 15, 18])
def test_a_cut_anywhere(when: str, number: int) -> None:
    async def talk() -> None:
        async with serving(Script([Cut(when, number)])) as server, Client(server.url).stream() as stream:
            events = await dictate(stream, 10, finalize_after=7)
            check(server, events, 10)
            assert server.connections == 2
            assert stream.breaks == 1
            assert [event.id for event in events if isinstance(event, Marker)] == [1]

    alone(talk())


@pytest.mark.parametrize("wire", ["binary", "json", "msgpack"])
@pytest.mark.parametrize("seed", range(4))
def test_many_cuts(wire: WireFormat, seed: int) -> None:
    async def talk() -> None:
        chance = random.Random(seed)
        first = Cut(chance.choice(("before", "read", "sent")), chance.randint(3, 20))
        cuts = [Cut(chance.choice(("before", "read", "sent")), chance.randint(2, 12)) for _ in range(6)]
        script = Script([first, *cuts], acknowledge=chance.randint(0, 5))
        async with serving(script) as server, Client(server.url).stream(wire=wire) as stream:
            check(server, await dictate(stream, 40, finalize_after=chance.randrange(60)), 40)
            assert server.connections > 3

    alone(talk())


@pytest.mark.parametrize("when", ["before", "read"])
def test_a_cut_at_the_finalize(when: str) -> None:
    """Whether the server had read it cannot be known; the marker comes once."""

    async def talk() -> None:
        script = Script([Cut(when, 4)], acknowledge=1)  # hello, config, audio, finalize
        async with serving(script) as server, Client(server.url).stream() as stream:
            await stream.send(speech(2))
            number = await stream.finalize()
            events = [await anext(stream) for _ in range(4)]
            assert [type(event) for event in events] == [Partial, Partial, Final, Marker]
            assert events[-1].id == number  # type: ignore[union-attr]
            await stream.close()
            assert [type(event) for event in await everything(stream)] == [Finished]
            assert server.connections == 2

    alone(talk())


def test_a_finalize_in_the_middle_is_not_moved() -> None:
    """The server has audio from behind it, and so has it."""

    async def talk() -> None:
        script = Script([Cut("read", 5)], acknowledge=0)  # hello, config, audio, finalize, audio
        async with serving(script) as server, Client(server.url).stream() as stream:
            await stream.send(speech(2))
            await stream.finalize()
            await stream.send(speech(2))
            await stream.close()
            finals = [event.text for event in await everything(stream) if isinstance(event, Final)]
            assert [len(text.split()) for text in finals] == [2, 2]
            assert server.connections == 2
            assert sum(isinstance(event, Marker) for event in server.heard.events) == 1

    alone(talk())


def test_a_break_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> None:
        async with serving(Script([Cut("read", 4)])) as server, Client(server.url).stream() as stream:
            await dictate(stream, 4)

    alone(talk())
    assert [record.levelname for record in caplog.records if "resumed after" in record.message] == ["WARNING"]


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (Script(resume_seconds=0), "could not be resumed within 0 s"),
        (Script(refuse_resume=Error(message="no such stream", code="unknown_stream")), "no such stream"),
        (Script(refuse_resume=Error(message="full", code="busy"), resume_seconds=1), "full"),
        (Script(forget_after_break=80, acknowledge=1), "has lost"),
    ],
)
def test_a_stream_that_cannot_be_resumed(script: Script, fault: str) -> None:
    async def talk() -> None:
        script.cuts = [Cut("read", 6)]
        async with serving(script) as server, Client(server.url).stream() as stream:
            for _ in range(5):
                await stream.send(speech(1))
            with pytest.raises(ConnectionLost, match=fault):
                await everything(stream)
            with pytest.raises(ConnectionLost, match=fault):
                await stream.send(speech(1))

    alone(talk())


def test_a_server_that_is_away_for_a_while() -> None:
    async def talk() -> None:
        async with serving(Script([Cut("read", 5)])) as server, Client(server.url).stream() as stream:
            server.script.status = 502  # a proxy speaks for it
            for packet in in_packets(speech(10), PACKET):
                await stream.send(packet)
            await stream.close()
            reading = asyncio.create_task(everything(stream))
            await until(lambda: server.refused >= 2)
            assert not reading.done()
            server.script.status = None
            check(server, await reading, 10)

    alone(talk())


def test_connections_that_bring_nothing_do_not_go_on_forever() -> None:
    """Each is cut as soon as it stands; the time to come back runs from the first."""

    async def talk() -> None:
        cuts = [Cut("read", 4)] + [Cut("sent", 1)] * 1000
        script = Script(cuts, resume_seconds=0.4, acknowledge=0)
        async with serving(script) as server, Client(server.url).stream() as stream:
            await stream.send(b"12")
            await stream.send(b"34")
            with pytest.raises(ConnectionLost):
                await everything(stream)
            assert server.connections > 1

    alone(talk())


def test_leaving_while_the_connection_is_away() -> None:
    async def talk() -> None:
        script = Script([Cut("read", 3)], refuse_resume=Error(message="full", code="busy", retry_after=5))
        async with serving(script) as server, Client(server.url).stream() as stream:
            await stream.send(speech(1))
            await until(lambda: server.connections >= 2)

    alone(talk())


@pytest.mark.parametrize("when", ["before", "read"])
def test_a_cut_at_the_close(when: str) -> None:
    async def talk() -> None:
        script = Script([Cut(when, 20)])  # hello, config, 16 packets, finalize, close
        async with serving(script) as server, Client(server.url).stream() as stream:
            check(server, await dictate(stream, 10, finalize_after=7), 10)
            assert server.connections == 2

    alone(talk())
