"""What is sent together is found apart again, each stream's in its order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from conure.engine.messages import (
    Answer,
    Audio,
    Close,
    Finished,
    Heard,
    Marker,
    Note,
    Open,
    Pong,
    Request,
    StreamOptions,
    Turned,
    UtteranceEnded,
    connection_of,
    numbers_of,
)
from conure.engine.ring import SampleRing
from conure.engine.wire import AnswerReader, AnswerWriter, NoRoom, RequestReader, RequestWriter
from conure.types import Token

WORD = (Token(7, 0.08, 0.16, 0.9),)


@pytest.fixture
def rings() -> Iterator[tuple[SampleRing, SampleRing]]:
    ours = SampleRing.create(1000)
    theirs = SampleRing.attach(ours.name)
    yield ours, theirs
    theirs.close()
    ours.close()


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal(count).astype(np.float32)


def test_numbers_tell_whose_they_are() -> None:
    for connection in (0, 1, 17, 4000):
        numbers = numbers_of(connection)
        some = [next(numbers) for _ in range(3)]
        assert len(set(some)) == 3
        assert {connection_of(number) for number in some} == {connection}
    assert next(numbers_of(0)) == 1


def test_packets_between_other_requests(rings: tuple[SampleRing, SampleRing]) -> None:
    writer, reader = RequestWriter(rings[0]), RequestReader(rings[1])
    far = next(numbers_of(5))
    said: list[Request] = [
        Open(1, StreamOptions("live")),
        Audio(1, noise(20)),
        Audio(far, noise(0)),
        Audio(1, noise(30)),
        Close(1),
        Audio(far, noise(40)),
    ]
    for _ in range(30):  # more than the ring holds at a time
        heard = list(reader.decode(writer.encode(said)))
        assert [type(request) for request in heard] == [type(request) for request in said]
        assert [request.stream for request in heard] == [1, 1, far, 1, 1, far]  # type: ignore[union-attr]
        for ours, theirs in zip(said, heard, strict=True):
            if isinstance(ours, Audio):
                assert isinstance(theirs, Audio)
                assert np.array_equal(ours.samples, theirs.samples)


def test_a_full_ring_says_so(rings: tuple[SampleRing, SampleRing]) -> None:
    with pytest.raises(NoRoom):
        RequestWriter(rings[0]).encode([Audio(1, noise(600)), Audio(2, noise(600))])


def test_streams_that_only_went_on_go_together() -> None:
    far = next(numbers_of(3))
    only: list[Answer | Note] = [Heard(number, (), number / 7) for number in (1, 2, far)]
    payload = AnswerWriter().encode(only)
    assert list(AnswerReader().decode(payload)) == only
    many = AnswerWriter().encode([Heard(number, (), 1.0) for number in range(1000)])
    assert len(many) < 1000 * 17


def test_the_order_of_each_stream_is_kept() -> None:
    said: list[Answer | Note] = [
        Heard(1, (), 0.5),
        UtteranceEnded(1, 0.5, "silence"),
        Heard(2, WORD, 0.9),
        Heard(3, (), 0.7),
        Pong(4),
        Heard(1, (), 0.8),
        Marker(1, 9),
        Heard(2, (), 1.0),
        Heard(4, (), 0.6),
        Finished(4),
        Turned("live", 160, 4, 0.1, 4, 0, {"encoder": 0.05}),
    ]
    heard = list(AnswerReader().decode(AnswerWriter().encode(said)))
    assert len(heard) == len(said)
    for stream in (1, 2, 3, 4):
        assert [told for told in heard if stream_of(told) == stream] == [
            told for told in said if stream_of(told) == stream
        ]
    assert [told for told in heard if isinstance(told, Note)] == [told for told in said if isinstance(told, Note)]


def stream_of(told: object) -> int | None:
    return None if isinstance(told, Note) else told.stream  # type: ignore[attr-defined,no-any-return]
