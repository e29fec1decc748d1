"""What goes between an engine's process and those that ask it: msgpack for messages, shared memory for samples.

Packets, of which there is most, go together: those that were gathered are one message and one piece of memory. Who
reads finds them apart again.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from msgspec import Struct, msgpack

from conure.engine.ipc.sample_ring import SampleRing
from conure.engine.messages import Answer, Audio, Note, Request
from conure.engine.plan import ModelInfo

__all__ = [
    "DEVICE_FAILED_EXIT",
    "Broken",
    "Connect",
    "FromEngine",
    "NoRoom",
    "Ready",
    "RequestReader",
    "RequestWriter",
    "Starting",
    "answer_reader",
    "connect_reader",
]


DEVICE_FAILED_EXIT = 90
"""What the engine's process ends with where its device failed."""


class Connect(Struct, frozen=True):
    """The first that is said on a new connection."""

    connection: int
    ring: str
    """Name of its ring."""


class Ready(Struct, frozen=True, tag=True):
    """The engine takes requests."""

    cards: tuple[ModelInfo, ...]
    seconds: float
    """It took to get there."""
    process: int
    """Its id."""


class Broken(Struct, frozen=True, tag=True):
    """It never will."""

    error: str
    """Name of the class in `errors`."""
    message: str
    hint: str | None


class Starting(Struct, frozen=True, tag=True):
    """The engine begins the next step of its start."""

    step: str
    """For the log."""


FromEngine = Answer | Note | Ready | Broken | Starting


class _Packets(Struct, frozen=True, tag=True):
    """Audio of several streams, one behind the other in the ring."""

    streams: bytes
    """int64 [n]"""
    counts: bytes
    """Samples of each, int64 [n]."""
    place: tuple[int, int]


class NoRoom(Exception):
    """The engine has not read what was sent before."""


class RequestWriter:
    """Requests to bytes; their samples go into the ring."""

    def __init__(self, ring: SampleRing) -> None:
        self._ring = ring
        self._encoder = msgpack.Encoder(enc_hook=self._place)

    def encode(self, requests: Sequence[Request]) -> bytes:
        """Raises NoRoom; what was written of the requests until then is written again with the next ones."""
        return self._encoder.encode(list(self._together(requests)))

    def _together(self, requests: Sequence[Request]) -> Iterator[Request | _Packets]:
        for is_audio, some in itertools.groupby(requests, lambda request: type(request) is Audio):
            if is_audio:
                yield self._packets(list(some))  # type: ignore[arg-type]
            else:
                yield from some

    def _packets(self, packets: Sequence[Audio]) -> _Packets:
        parts = [packet.samples for packet in packets]
        streams, counts = array("q", [packet.stream for packet in packets]), array("q", map(len, parts))
        return _Packets(streams.tobytes(), counts.tobytes(), self._place(np.concatenate(parts)))

    def _place(self, samples: Any) -> tuple[int, int]:
        place = self._ring.write(np.ascontiguousarray(samples, np.float32))
        if place is None:
            raise NoRoom
        return place


class RequestReader:
    """The same, back."""

    def __init__(self, ring: SampleRing) -> None:
        self._ring = ring
        self._decoder = msgpack.Decoder(list[Request | _Packets], dec_hook=self._take)

    def decode(self, payload: bytes) -> Iterator[Request]:
        for message in self._decoder.decode(payload):
            if isinstance(message, _Packets):
                yield from self._apart(message)
            else:
                yield message

    def _apart(self, packets: _Packets) -> Iterator[Audio]:
        samples, begin = self._ring.read(*packets.place), 0
        for stream, count in zip(_numbers(packets.streams), _numbers(packets.counts), strict=True):
            yield Audio(stream, samples[begin : begin + count])
            begin += count

    def _take(self, kind: type, place: Any) -> Any:
        return self._ring.read(*place)


def answer_reader() -> msgpack.Decoder[list[FromEngine]]:
    return msgpack.Decoder(list[FromEngine])


def connect_reader() -> msgpack.Decoder[Connect]:
    return msgpack.Decoder(Connect)


def _numbers(packed: bytes) -> array[int]:
    return array("q", packed)
