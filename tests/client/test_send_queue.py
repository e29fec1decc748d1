"""Tests of the queue of unacknowledged audio and requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conure.client.errors import BadMessage, ConnectionLost, StreamClosed
from conure.client.protocol import Close, Finalize
from conure.client.send_queue import SendQueue


async def fill(queue: SendQueue, *items: Any) -> None:
    for item in items:
        await queue.put(item)


async def drain(queue: SendQueue) -> list[Any]:
    drained = []
    while queue._waiting:
        drained.append(await queue.get())
    return drained


def test_request_at_the_acknowledged_position_is_sent_again() -> None:
    async def scenario() -> None:
        queue = SendQueue(1000)
        await fill(queue, b"ab", Finalize(id=1), b"cd", Finalize(id=2), b"ef", Close())
        await drain(queue)
        queue.rewind(4)
        assert await drain(queue) == [Finalize(id=2), b"ef", Close()]
        queue.finalize_answered(2)
        queue.rewind(5)
        assert await drain(queue) == [b"f", Close()]
        queue.rewind(6)
        assert await drain(queue) == [Close()]

    asyncio.run(scenario())


def test_answered_finalize_is_not_sent_again() -> None:
    async def scenario() -> None:
        queue = SendQueue(1000)
        await fill(queue, b"ab", Finalize(id=1), b"cd")
        await drain(queue)
        queue.rewind(2)
        queue.finalize_answered(1)
        assert await drain(queue) == [b"cd"]
        queue.acknowledge(4)
        assert queue.held_bytes == 0

    asyncio.run(scenario())


def test_impossible_acknowledgements() -> None:
    async def scenario() -> None:
        queue = SendQueue(1000)
        await fill(queue, b"abcd", b"ef")
        await queue.get()
        with pytest.raises(BadMessage, match="5 bytes"):
            queue.acknowledge(5)
        queue.acknowledge(4)
        queue.acknowledge(2)  # outdated
        assert queue.received == 4
        with pytest.raises(ConnectionLost, match="2 bytes"):
            queue.rewind(2)

    asyncio.run(scenario())


def test_put_waits_while_full_and_ends_with_the_queue() -> None:
    async def scenario() -> None:
        queue = SendQueue(100)
        await fill(queue, bytes(90))
        for item in (bytes(20), Finalize(id=1)):
            waiting = asyncio.create_task(queue.put(item))
            await asyncio.sleep(0)
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])
        assert queue.held_bytes == 90
        waiting = asyncio.create_task(queue.put(bytes(20)))
        await drain(queue)
        queue.acknowledge(90)
        await waiting
        assert queue.held_bytes == 20
        waiting = asyncio.create_task(queue.put(bytes(90)))
        await asyncio.sleep(0)
        queue.end(StreamClosed("over"))
        with pytest.raises(StreamClosed):
            await waiting

    asyncio.run(scenario())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12), st.lists(st.tuples(st.integers(0, 12), st.integers(0, 99)))
)
def test_every_byte_arrives_exactly_once(sizes: list[int], breaks: list[tuple[int, int]]) -> None:
    """`breaks`: packets sent before each break, and the percentage of their bytes that the server has read."""

    async def scenario() -> None:
        audio = bytes(range(sum(sizes)))
        queue = SendQueue(1000)
        start = 0
        for size in sizes:
            await queue.put(audio[start : start + size])
            start += size
        server_bytes = b""
        for packets, share in breaks:
            sent = b"".join([await queue.get() for _ in range(min(packets, len(queue._waiting)))])  # type: ignore[misc]
            server_bytes += sent[: len(sent) * share // 100]
            queue.rewind(len(server_bytes))
            assert queue.held_bytes == len(audio) - len(server_bytes)
        assert server_bytes + b"".join(await drain(queue)) == audio

    asyncio.run(scenario())
