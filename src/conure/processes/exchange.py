"""What the parent and a door process say to each other, over a socket whose end tells that the other has gone.

door    Opened (or Broken), then Told whenever it is asked, Ask when a client asks it, Drained once
parent  Tell, All (to who asked), Drain, Stop
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from msgspec import Struct, msgpack

from conure.engine.frames import frame, read_frame
from conure.engine.wire import Broken
from conure.metrics import Family

__all__ = ["All", "Ask", "Channel", "Drain", "Drained", "Message", "Opened", "Report", "Stop", "Tell", "Told"]


class Report(Struct, frozen=True):
    """How one process is."""

    streams: int = 0
    measured: list[Family] = []


class Opened(Struct, frozen=True, tag=True):
    """Its doors are open."""


class Ask(Struct, frozen=True, tag=True):
    """How is the whole server?"""

    number: int


class All(Struct, frozen=True, tag=True):
    """The answer."""

    number: int
    status: dict[str, Any]
    measured: list[Family]


class Tell(Struct, frozen=True, tag=True):
    """How are you?"""

    number: int


class Told(Struct, frozen=True, tag=True):
    """The answer."""

    number: int
    report: Report


class Drain(Struct, frozen=True, tag=True):
    """Nothing new; those that are open may go on so long."""

    seconds: float


class Drained(Struct, frozen=True, tag=True):
    """Nothing is open any more."""


class Stop(Struct, frozen=True, tag=True):
    """At once."""


Message = Opened | Broken | Ask | All | Tell | Told | Drain | Drained | Stop

_encoder = msgpack.Encoder()
_decoder: msgpack.Decoder[Message] = msgpack.Decoder(Message)


class Channel:
    """One end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @staticmethod
    async def over(end: socket.socket) -> Channel:
        return Channel(*await asyncio.open_connection(sock=end))

    def say(self, message: Message) -> None:
        """What is said to who has gone is for nobody; who hears notices."""
        if not self._writer.is_closing():
            self._writer.write(frame(_encoder.encode(message)))

    async def hear(self) -> Message | None:
        """None when the other has gone."""
        said = await read_frame(self._reader)
        return None if said is None else _decoder.decode(said)

    def close(self) -> None:
        self._writer.close()
