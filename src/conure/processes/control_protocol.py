"""What the parent and a door process say to each other, over a socket whose end tells that the other has gone.

door    Opened (or Broken), then Told whenever it is asked, Ask when a client asks it, Drained once;
        Begin, Reserve, Spend and End for visits of callers whose keys have limits
parent  Tell, All (to who asked), Granted or Over (to who began or reserved), Drain, Stop
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, TypeVar

from msgspec import Struct, msgpack

from conure.engine.ipc.frames import read_frame, write_frame
from conure.engine.ipc.wire import Broken
from conure.errors import Busy
from conure.metrics import Family
from conure.service.access import Scope
from conure.service.limits import Limits

__all__ = [
    "StatusResponse",
    "StatusRequest",
    "BeginUsage",
    "ControlChannel",
    "Drain",
    "Drained",
    "EndUsage",
    "UsageGranted",
    "Message",
    "ServerOpened",
    "LimitReached",
    "Report",
    "ReserveUsage",
    "SpendUsage",
    "Stop",
    "ReportRequest",
    "ReportResponse",
    "answer_of",
]

PATIENCE, LOOKS = 5.0, 5
"""Seconds that a door waits for its parent's answer; looks at it in that time, which a door that is held up misses."""

Answer = TypeVar("Answer")


class Report(Struct, frozen=True):
    """How one process is."""

    streams: int = 0
    measured: list[Family] = []


class ServerOpened(Struct, frozen=True, tag=True):
    """Its doors are open."""


class StatusRequest(Struct, frozen=True, tag=True):
    """How is the whole server?"""

    number: int


class StatusResponse(Struct, frozen=True, tag=True):
    """The answer."""

    number: int
    status: dict[str, Any]
    measured: list[Family]


class ReportRequest(Struct, frozen=True, tag=True):
    """How are you?"""

    number: int


class ReportResponse(Struct, frozen=True, tag=True):
    """The answer."""

    number: int
    report: Report


class BeginUsage(Struct, frozen=True, tag=True):
    """May the key begin this?"""

    number: int
    """Of the visit, in its process."""
    key: str
    limits: Limits
    scope: Scope


class ReserveUsage(Struct, frozen=True, tag=True):
    """May so much audio be set aside for the visit?"""

    number: int
    seconds: float


class UsageGranted(Struct, frozen=True, tag=True):
    """It may begin, or has its reservation."""

    number: int


class SpendUsage(Struct, frozen=True, tag=True):
    """So much audio came."""

    number: int
    seconds: float


class LimitReached(Struct, frozen=True, tag=True):
    """It may not begin, or has had all that it may have."""

    number: int
    message: str
    hint: str | None
    retry_after: float


class EndUsage(Struct, frozen=True, tag=True):
    number: int


class Drain(Struct, frozen=True, tag=True):
    """Nothing new; those that are open may go on so long."""

    seconds: float


class Drained(Struct, frozen=True, tag=True):
    """Nothing is open any more."""


class Stop(Struct, frozen=True, tag=True):
    """At once."""


Visits = BeginUsage | UsageGranted | ReserveUsage | SpendUsage | LimitReached | EndUsage
Message = (
    ServerOpened
    | Broken
    | StatusRequest
    | StatusResponse
    | ReportRequest
    | ReportResponse
    | Visits
    | Drain
    | Drained
    | Stop
)

_encoder = msgpack.Encoder()
_decoder: msgpack.Decoder[Message] = msgpack.Decoder(Message)


class ControlChannel:
    """One end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @staticmethod
    async def from_socket(end: socket.socket) -> ControlChannel:
        return ControlChannel(*await asyncio.open_connection(sock=end))

    def send(self, message: Message) -> None:
        """What is said to who has gone is for nobody; who hears notices."""
        with contextlib.suppress(ConnectionError):
            write_frame(self._writer, _encoder.encode(message))

    async def receive(self) -> Message | None:
        """None when the other has gone."""
        said = await read_frame(self._reader)
        return None if said is None else _decoder.decode(said)

    def close(self) -> None:
        self._writer.close()


async def answer_of(asked: asyncio.Future[Answer]) -> Answer:
    """What the parent says to a question. Raises Busy where it says nothing: it may be stopped."""
    for _ in range(LOOKS):
        done, _ = await asyncio.wait([asked], timeout=PATIENCE / LOOKS)
        if done:
            return asked.result()
    raise Busy("the server's first process does not answer", "it is stopped or has too much to do; its log may tell")
