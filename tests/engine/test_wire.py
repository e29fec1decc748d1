"""Batched packets are split again, those of each stream in order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from conure.engine.ipc.sample_ring import SampleRing
from conure.engine.ipc.wire import RequestDecoder, RequestEncoder, RingFull
from conure.engine.messages import (
    Audio,
    Close,
    Open,
    Request,
    StreamOptions,
    connection_of,
    stream_numbers,
)


@pytest.fixture
def rings() -> Iterator[tuple[SampleRing, SampleRing]]:
    ours = SampleRing.create(1000)
    theirs = SampleRing.attach(ours.name)
    yield ours, theirs
    theirs.close()
    ours.close()


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal(count).astype(np.float32)


def test_numbers_identify_their_connection() -> None:
    for connection in (0, 1, 17, 4000):
        numbers = stream_numbers(connection)
        some = [next(numbers) for _ in range(3)]
        assert len(set(some)) == 3
        assert {connection_of(number) for number in some} == {connection}
    assert next(stream_numbers(0)) == 1


def test_packets_between_other_requests(rings: tuple[SampleRing, SampleRing]) -> None:
    writer, reader = RequestEncoder(rings[0]), RequestDecoder(rings[1])
    far = next(stream_numbers(5))
    requests: list[Request] = [
        Open(1, StreamOptions("live")),
        Audio(1, noise(20)),
        Audio(far, noise(0)),
        Audio(1, noise(30)),
        Close(1),
        Audio(far, noise(40)),
    ]
    for _ in range(30):  # more than the ring holds at a time
        decoded = list(reader.decode(writer.encode(requests)))
        assert [type(request) for request in decoded] == [type(request) for request in requests]
        assert [request.stream for request in decoded] == [1, 1, far, 1, 1, far]  # type: ignore[union-attr]
        for ours, theirs in zip(requests, decoded, strict=True):
            if isinstance(ours, Audio):
                assert isinstance(theirs, Audio)
                assert np.array_equal(ours.samples, theirs.samples)


def test_a_full_ring_is_reported(rings: tuple[SampleRing, SampleRing]) -> None:
    with pytest.raises(RingFull):
        RequestEncoder(rings[0]).encode([Audio(1, noise(600)), Audio(2, noise(600))])
