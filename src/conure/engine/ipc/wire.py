"""The encoding between an engine process and its clients: msgpack for messages, shared memory for samples.

The packets of one call are batched: one message and one place in the ring for all their samples.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from msgspec import Struct, msgpack

from conure.engine.ipc.sample_ring import SampleRing
from conure.engine.messages import Audio, EngineEvent, Request, StreamEvent
from conure.engine.plan import ModelInfo

__all__ = [
    "DEVICE_FAILED_EXIT",
    "StartFailed",
    "Connect",
    "EngineMessage",
    "RingFull",
    "Ready",
    "RequestDecoder",
    "RequestEncoder",
    "Starting",
    "message_decoder",
    "connect_decoder",
]


DEVICE_FAILED_EXIT = 90
"""Exit code of an engine process whose device failed."""


class Connect(Struct, frozen=True):
    """The first message of a client on a new connection."""

    connection: int
    ring: str
    """Name of the client's ring."""


class Ready(Struct, frozen=True, tag=True):
    """The engine accepts requests."""

    models: tuple[ModelInfo, ...]
    seconds: float
    """Duration of the start."""
    process_id: int


class StartFailed(Struct, frozen=True, tag=True):
    """The engine cannot start."""

    error: str
    """Name of the exception class in `errors`."""
    message: str
    hint: str | None


class Starting(Struct, frozen=True, tag=True):
    """The next step of the engine's start has begun."""

    step: str
    """For the log."""


EngineMessage = StreamEvent | EngineEvent | Ready | StartFailed | Starting


class _Packets(Struct, frozen=True, tag=True):
    """Packets of several streams, contiguous in the ring."""

    streams: bytes
    """int64 [n]"""
    counts: bytes
    """Samples of each packet, int64 [n]."""
    place: tuple[int, int]


class RingFull(Exception):
    """The engine has not read enough of the ring to make room for the samples."""


class RequestEncoder:
    """Encodes requests; their samples go into the ring."""

    def __init__(self, ring: SampleRing) -> None:
        self._ring = ring
        self._encoder = msgpack.Encoder(enc_hook=self._write_samples)

    def encode(self, requests: Sequence[Request]) -> bytes:
        """Raises RingFull. Samples written before it was raised stay in the ring, and are freed by the next read."""
        return self._encoder.encode(list(self._batch_packets(requests)))

    def _batch_packets(self, requests: Sequence[Request]) -> Iterator[Request | _Packets]:
        for is_audio, group in itertools.groupby(requests, lambda request: type(request) is Audio):
            if is_audio:
                yield self._packets(list(group))  # type: ignore[arg-type]
            else:
                yield from group

    def _packets(self, packets: Sequence[Audio]) -> _Packets:
        parts = [packet.samples for packet in packets]
        streams, counts = array("q", [packet.stream for packet in packets]), array("q", map(len, parts))
        return _Packets(streams.tobytes(), counts.tobytes(), self._write_samples(np.concatenate(parts)))

    def _write_samples(self, samples: Any) -> tuple[int, int]:
        place = self._ring.write(np.ascontiguousarray(samples, np.float32))
        if place is None:
            raise RingFull
        return place


class RequestDecoder:
    """Decodes requests, with their samples from the ring."""

    def __init__(self, ring: SampleRing) -> None:
        self._ring = ring
        self._decoder = msgpack.Decoder(list[Request | _Packets], dec_hook=self._read_samples)

    def decode(self, payload: bytes) -> Iterator[Request]:
        for message in self._decoder.decode(payload):
            if isinstance(message, _Packets):
                yield from self._split_packets(message)
            else:
                yield message

    def _split_packets(self, packets: _Packets) -> Iterator[Audio]:
        samples, begin = self._ring.read(*packets.place), 0
        for stream, count in zip(_unpack_int64(packets.streams), _unpack_int64(packets.counts), strict=True):
            yield Audio(stream, samples[begin : begin + count])
            begin += count

    def _read_samples(self, kind: type, place: Any) -> Any:
        return self._ring.read(*place)


def message_decoder() -> msgpack.Decoder[list[EngineMessage]]:
    return msgpack.Decoder(list[EngineMessage])


def connect_decoder() -> msgpack.Decoder[Connect]:
    return msgpack.Decoder(Connect)


def _unpack_int64(packed: bytes) -> array[int]:
    return array("q", packed)
