"""Client of a Conure server; independent of the server's code.

async with Client("ws://localhost:8000").stream() as stream:
    await stream.send(audio)
    await stream.close()
    async for event in stream:
        print(event)
"""

from __future__ import annotations

from conure.client.blocking import BlockingClient, BlockingStream
from conure.client.client import Client
from conure.client.errors import (
    BadInput,
    BadMessage,
    CannotConnect,
    ClientError,
    ConnectionLost,
    ReaderTooSlow,
    ServerBusy,
    ServerError,
    StreamClosed,
    StreamFailed,
)
from conure.client.event_queue import Event
from conure.client.protocol import (
    Cancelled,
    Endpointing,
    Final,
    Finals,
    Finished,
    Lag,
    Marker,
    Partial,
    SpeechStarted,
    UtteranceEnd,
    Warned,
    Word,
)
from conure.client.recording import Segment, Transcript
from conure.client.stream import Stream

__all__ = [
    "BadInput",
    "BadMessage",
    "BlockingClient",
    "BlockingStream",
    "Cancelled",
    "CannotConnect",
    "Client",
    "ClientError",
    "ConnectionLost",
    "Endpointing",
    "Event",
    "Final",
    "Finals",
    "Finished",
    "Lag",
    "Marker",
    "Partial",
    "ReaderTooSlow",
    "Segment",
    "ServerBusy",
    "ServerError",
    "SpeechStarted",
    "Stream",
    "StreamClosed",
    "StreamFailed",
    "Transcript",
    "UtteranceEnd",
    "Warned",
    "Word",
]
