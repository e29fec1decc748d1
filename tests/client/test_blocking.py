"""Tests of the blocking client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from conure.client import BlockingClient, Final, Finished, Marker, Partial, ServerBusy, StreamClosed
from conure.client.protocol import Cancel, Error
from tests.client.scripted_server import Cut, FakeServer, Script, in_packets, serving_in_a_thread, speech
from tests.waiting import wait_for

Serve = Callable[[Script], FakeServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Checks that no thread is left afterwards."""
    before = set(threading.enumerate())
    with serving_in_a_thread() as start:
        yield start
        assert not [thread for thread in threading.enumerate() if thread.name == "conure client"]
    assert set(threading.enumerate()) <= before  # a thread of another test may have ended


def test_stream_survives_a_broken_connection(serve: Serve) -> None:
    server = serve(Script([Cut("read", 8)]))
    with BlockingClient(server.url).stream(model="m") as stream:
        assert stream.ready.model == "m"
        for packet in in_packets(speech(6), 40):
            stream.send(packet)
        assert stream.finalize() == 1
        stream.close()
        events = list(stream)
    assert [type(event) for event in events] == [Partial] * 6 + [Final, Marker, Finished]
    assert bytes(server.heard.audio) == speech(6)
    assert server.connections == 2


def test_exiting_early_cancels_the_stream(serve: Serve) -> None:
    server = serve(Script())
    with BlockingClient(server.url).stream() as stream:
        stream.send(speech(1))
        assert isinstance(next(stream), Partial)
    with pytest.raises(StreamClosed):
        stream.send(b"more")
    wait_for(lambda: server.heard.requests)
    assert isinstance(server.heard.requests[0], Cancel)


def test_refusal_is_raised(serve: Serve) -> None:
    server = serve(Script(first=Error(message="full", code="busy", retry_after=3)))
    with pytest.raises(ServerBusy), BlockingClient(server.url).stream():
        pass


def test_one_thread_sends_while_another_reads(serve: Serve) -> None:
    server = serve(Script())
    with BlockingClient(server.url).stream() as stream, ThreadPoolExecutor() as threads:
        reading = threads.submit(list, stream)
        stream.send(speech(3))
        stream.close()
        assert len(reading.result(60)) == 5
