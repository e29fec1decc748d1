"""What goes between an engine's process and the one that asks it: msgpack for messages, shared memory for samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import Struct, msgpack

from conure.engine.messages import Answer, Note, Request
from conure.engine.plan import ModelCard
from conure.engine.ring import SampleRing

__all__ = [
    "DEVICE_FAILED_EXIT",
    "Broken",
    "FromEngine",
    "NoRoom",
    "Ready",
    "RequestReader",
    "RequestWriter",
    "answer_reader",
]


DEVICE_FAILED_EXIT = 90
"""What the engine's process ends with where its device failed."""


class Ready(Struct, frozen=True, tag=True):
    """The engine takes requests."""

    cards: tuple[ModelCard, ...]
    seconds: float
    """It took to get there."""


class Broken(Struct, frozen=True, tag=True):
    """It never will."""

    error: str
    """Name of the class in `errors`."""
    message: str
    hint: str | None


FromEngine = Answer | Note | Ready | Broken


class NoRoom(Exception):
    """The engine has not read what was sent before."""


class RequestWriter:
    """Requests to bytes; their samples go into the ring."""

    def __init__(self, ring: SampleRing) -> None:
        self._ring = ring
        self._encoder = msgpack.Encoder(enc_hook=self._place)

    def encode(self, requests: list[Request]) -> bytes:
        """Raises NoRoom; what was written of the requests until then is written again with the next ones."""
        return self._encoder.encode(requests)

    def _place(self, samples: Any) -> tuple[int, int]:
        place = self._ring.write(np.ascontiguousarray(samples, np.float32))
        if place is None:
            raise NoRoom
        return place


class RequestReader:
    """The same, back."""

    def __init__(self, ring: SampleRing) -> None:
        self._ring = ring
        self._decoder = msgpack.Decoder(list[Request], dec_hook=self._take)

    def decode(self, payload: bytes) -> list[Request]:
        return self._decoder.decode(payload)

    def _take(self, kind: type, place: Any) -> Any:
        return self._ring.read(*place)


def answer_reader() -> msgpack.Decoder[list[FromEngine]]:
    return msgpack.Decoder(list[FromEngine])
