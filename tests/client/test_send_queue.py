"""What is kept until it is safe."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conure.client.errors import BadMessage, ConnectionLost, StreamClosed
from conure.client.protocol import Close, Finalize
from conure.client.send_queue import SendQueue


async def fill(outbox: SendQueue, *items: Any) -> None:
    for item in items:
        await outbox.put(item)


async def drain(outbox: SendQueue) -> list[Any]:
    taken = []
    while outbox._waiting:
        taken.append(await outbox.get())
    return taken


def test_a_request_right_at_the_end_of_what_was_received_is_written_again() -> None:
    async def work() -> None:
        outbox = SendQueue(1000)
        await fill(outbox, b"ab", Finalize(id=1), b"cd", Finalize(id=2), b"ef", Close())
        await drain(outbox)
        outbox.rewind(4)
        assert await drain(outbox) == [Finalize(id=2), b"ef", Close()]
        outbox.finalize_answered(2)
        outbox.rewind(5)
        assert await drain(outbox) == [b"f", Close()]
        outbox.rewind(6)
        assert await drain(outbox) == [Close()]

    asyncio.run(work())


def test_an_answer_that_comes_before_the_request_is_written_again() -> None:
    async def work() -> None:
        outbox = SendQueue(1000)
        await fill(outbox, b"ab", Finalize(id=1), b"cd")
        await drain(outbox)
        outbox.rewind(2)
        outbox.finalize_answered(1)
        assert await drain(outbox) == [b"cd"]
        outbox.acknowledge(4)
        assert outbox.held_bytes == 0

    asyncio.run(work())


def test_what_a_server_cannot_have() -> None:
    async def work() -> None:
        outbox = SendQueue(1000)
        await fill(outbox, b"abcd", b"ef")
        await outbox.get()
        with pytest.raises(BadMessage, match="5 bytes"):
            outbox.acknowledge(5)
        outbox.acknowledge(4)
        outbox.acknowledge(2)  # late news
        assert outbox.received == 4
        with pytest.raises(ConnectionLost, match="2 bytes"):
            outbox.rewind(2)

    asyncio.run(work())


def test_it_is_bounded_and_an_end_wakes_who_waits() -> None:
    async def work() -> None:
        outbox = SendQueue(100)
        await fill(outbox, bytes(90))
        for item in (bytes(20), Finalize(id=1)):
            waiting = asyncio.create_task(outbox.put(item))
            await asyncio.sleep(0)
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])
        assert outbox.held_bytes == 90
        waiting = asyncio.create_task(outbox.put(bytes(20)))
        await drain(outbox)
        outbox.acknowledge(90)
        await waiting
        assert outbox.held_bytes == 20
        waiting = asyncio.create_task(outbox.put(bytes(90)))
        await asyncio.sleep(0)
        outbox.end(StreamClosed("over"))
        with pytest.raises(StreamClosed):
            await waiting

    asyncio.run(work())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12), st.lists(st.tuples(st.integers(0, 12), st.integers(0, 99)))
)
def test_every_byte_arrives_once(sizes: list[int], breaks: list[tuple[int, int]]) -> None:
    """However often a connection breaks: so many packets are written, and the server has read some of the bytes."""

    async def work() -> None:
        audio = bytes(range(sum(sizes)))
        outbox = SendQueue(1000)
        start = 0
        for size in sizes:
            await outbox.put(audio[start : start + size])
            start += size
        had = b""
        for packets, share in breaks:
            written = b"".join([await outbox.get() for _ in range(min(packets, len(outbox._waiting)))])  # type: ignore[misc]
            had += written[: len(written) * share // 100]
            outbox.rewind(len(had))
            assert outbox.held_bytes == len(audio) - len(had)
        assert had + b"".join(await drain(outbox)) == audio

    asyncio.run(work())
