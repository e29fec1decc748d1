"""Messages between the parent process and the server processes. A closed socket means that the other side is gone.

server process  ServerOpened (or Broken), then ReportResponse for each ReportRequest, StatusRequest when a client asks
                for the status, Drained once; BeginUsage, ReserveUsage, SpendUsage and EndUsage of keys with limits
parent          ReportRequest, StatusResponse, UsageGranted or LimitReached (to Begin- and ReserveUsage), Drain, Stop
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, TypeVar

from msgspec import Struct, msgpack

from conure.engine.ipc.frames import read_frame, write_frame
from conure.engine.ipc.wire import StartFailed
from conure.errors import Busy
from conure.metrics import Family
from conure.service.access import Scope
from conure.service.limits import Limits

__all__ = [
    "BeginUsage",
    "ControlChannel",
    "Drain",
    "Drained",
    "EndUsage",
    "LimitReached",
    "Message",
    "Report",
    "ReportRequest",
    "ReportResponse",
    "ReserveUsage",
    "ServerOpened",
    "SpendUsage",
    "StatusRequest",
    "StatusResponse",
    "Stop",
    "UsageGranted",
    "wait_for_response",
]

RESPONSE_TIMEOUT, CHECKS = 5.0, 5
"""Seconds that a server process waits for a response of its parent, and into how many waits they are divided: a process
whose event loop is blocked then loses one of these waits, not all of them."""

Response = TypeVar("Response")


class Report(Struct, frozen=True):
    """State of one server process."""

    streams: int = 0
    metrics: list[Family] = []


class ServerOpened(Struct, frozen=True, tag=True):
    """The ports of the server process are open."""


class StatusRequest(Struct, frozen=True, tag=True):
    """Requests the status of the whole server."""

    number: int


class StatusResponse(Struct, frozen=True, tag=True):
    number: int
    status: dict[str, Any]
    metrics: list[Family]


class ReportRequest(Struct, frozen=True, tag=True):
    """Requests the state of one server process."""

    number: int


class ReportResponse(Struct, frozen=True, tag=True):
    number: int
    report: Report


class BeginUsage(Struct, frozen=True, tag=True):
    """Requests permission to open a stream or to transcribe a recording with a key."""

    number: int
    """Of the usage, within its process."""
    key: str
    limits: Limits
    scope: Scope


class ReserveUsage(Struct, frozen=True, tag=True):
    """Requests a reservation of audio."""

    number: int
    seconds: float


class UsageGranted(Struct, frozen=True, tag=True):
    """Grants a BeginUsage or a ReserveUsage."""

    number: int


class SpendUsage(Struct, frozen=True, tag=True):
    """Reports audio that was received."""

    number: int
    seconds: float


class LimitReached(Struct, frozen=True, tag=True):
    """Refuses a BeginUsage or a ReserveUsage, or reports that the key has used up its limit."""

    number: int
    message: str
    hint: str | None
    retry_after: float


class EndUsage(Struct, frozen=True, tag=True):
    number: int


class Drain(Struct, frozen=True, tag=True):
    """Accept nothing new; open streams may go on for so many seconds."""

    seconds: float


class Drained(Struct, frozen=True, tag=True):
    """No stream, recording or callback is left."""


class Stop(Struct, frozen=True, tag=True):
    """End at once."""


UsageMessage = BeginUsage | UsageGranted | ReserveUsage | SpendUsage | LimitReached | EndUsage
StatusMessage = StatusRequest | StatusResponse | ReportRequest | ReportResponse
Message = ServerOpened | StartFailed | StatusMessage | UsageMessage | Drain | Drained | Stop

_encoder = msgpack.Encoder()
_decoder: msgpack.Decoder[Message] = msgpack.Decoder(Message)


class ControlChannel:
    """One end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @staticmethod
    async def from_socket(connection: socket.socket) -> ControlChannel:
        return ControlChannel(*await asyncio.open_connection(sock=connection))

    def send(self, message: Message) -> None:
        """Messages to a closed peer are dropped; `receive` detects the disconnect."""
        with contextlib.suppress(ConnectionError):
            write_frame(self._writer, _encoder.encode(message))

    async def receive(self) -> Message | None:
        """None when the peer has closed its end."""
        frame = await read_frame(self._reader)
        return None if frame is None else _decoder.decode(frame)

    def close(self) -> None:
        self._writer.close()


async def wait_for_response(pending: asyncio.Future[Response]) -> Response:
    """The response of the parent. Raises Busy if it does not respond in time: it may be stopped."""
    for _ in range(CHECKS):
        done, _ = await asyncio.wait([pending], timeout=RESPONSE_TIMEOUT / CHECKS)
        if done:
            return pending.result()
    raise Busy("the server's parent process does not respond", "it is stopped or overloaded; see its log")
