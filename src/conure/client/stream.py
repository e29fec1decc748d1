"""A live stream to a server, that outlives its connection.

Audio goes into an outbox, which keeps it until the server says that it has it; events come out of an inbox. One task
holds the connection between them. When that breaks, the task comes back with the token of the stream and the number of
the last event; the server sends the events after that, the client the audio that is missing. Who sends and who reads
notices nothing, until the time that the server gives a stream to come back is over.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from conure.client.audio import Encoding, bytes_per_second, packets, to_bytes
from conure.client.codec import Codec, WireFormat
from conure.client.connection import (
    FAREWELL_SECONDS,
    Address,
    ReconnectBackoff,
    error_from_message,
    open_socket,
)
from conure.client.errors import (
    BadMessage,
    CannotConnect,
    ClientError,
    ConnectionLost,
    ServerBusy,
    StreamClosed,
)
from conure.client.event_queue import Event, EventQueue
from conure.client.protocol import (
    Cancel,
    Cancelled,
    Close,
    Config,
    Error,
    Failed,
    Finalize,
    Finished,
    FromServer,
    Hello,
    Marker,
    Pong,
    Ready,
    Received,
    Resume,
)
from conure.client.send_queue import SendQueue

__all__ = ["Stream"]

MARGIN_SECONDS = 10.0
"""Audio that is kept beyond what may gather while a connection is away."""

log = logging.getLogger(__name__)


class Stream:
    """One live stream: a context manager that opens it, and an async iterator over its events.

    Leaving the block ends the stream, and cancels what it has not transcribed; `close` first, and read to the end, to
    have all of it.
    """

    def __init__(self, address: Address, hello: Hello, config: Config, wire_format: WireFormat = "binary") -> None:
        self._address = address
        self._hello = hello
        self._config = config
        self._wire = Codec(wire_format)
        self._sending = asyncio.Lock()
        self._inbox = EventQueue()
        self._seq = 0
        self._asked = 0
        self._unanswered: set[int] = set()
        self._closing = False
        self._patience: ReconnectBackoff | None = None
        self._outbox: SendQueue
        self._task: asyncio.Task[None]
        self.ready: Ready
        """What the server said when the stream was opened, or taken up again: its model, latency, token."""
        self.breaks = 0
        """How often the connection broke and was made anew."""

    async def __aenter__(self) -> Self:
        socket, ready = await open_socket(self._address, self._wire, (self._hello, self._config))
        self.ready = ready
        rate = bytes_per_second(self._encoding, self._hello.sample_rate, self._hello.channels)
        self._outbox = SendQueue(round(rate * (ready.resume_seconds + MARGIN_SECONDS)))
        self._task = asyncio.create_task(self._run(socket), name=f"stream {ready.stream_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._inbox.is_over:
            self._task.cancel()
        cancelled: asyncio.CancelledError | None = None
        while not self._task.done():  # saying good-bye has an end of its own
            try:
                await asyncio.wait([self._task])
            except asyncio.CancelledError as again:
                cancelled = again
        if cancelled is not None:
            raise cancelled

    async def send(self, audio: bytes | bytearray | memoryview | NDArray[Any]) -> None:
        """Send audio: bytes in the encoding of the stream, or an array [n] or [channels, n] of floats or int16.

        Waits while as much as can be kept is not yet safe on the server's side. A send of up to a second that is
        cancelled has sent nothing. Raises BadInput, StreamClosed, or what ended the stream.
        """
        data = to_bytes(audio, self._encoding, self._hello.channels)
        async with self._sending:
            self._check_open()
            for packet in packets(data, self._encoding, self._hello.channels):
                await self._outbox.put(packet)

    async def finalize(self) -> int:
        """Ask for a final of everything that was sent; returns the id of the Marker that will follow it."""
        async with self._sending:
            self._check_open()
            await self._outbox.put(Finalize(id=self._asked + 1))
            self._asked += 1
            self._unanswered.add(self._asked)
            return self._asked

    async def close(self) -> None:
        """That was all. The finals follow, then Finished, and the events are at their end."""
        async with self._sending:
            if not self._closing:
                await self._outbox.put(Close())
                self._closing = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event. Raises StreamFailed, ServerError, ConnectionLost, BadMessage or ReaderTooSlow."""
        event = await self._inbox.get()
        if event is None:
            raise StopAsyncIteration
        return event

    @property
    def _encoding(self) -> Encoding:
        return self._hello.encoding  # type: ignore[return-value]  # the server knows more than we write

    def _check_open(self) -> None:
        if self._closing:
            raise StreamClosed("the stream was closed: it takes no more audio", "open another one")

    async def _run(self, socket: ClientConnection) -> None:
        """Holds the connection until the stream is over."""
        try:
            broken = await self._converse(socket)
            while broken is not None:
                socket = await self._come_back(broken)
                broken = await self._converse(socket)
            self._end(None)
        except asyncio.CancelledError:
            self._end(StreamClosed("the stream was left before its end"))
            raise
        except Exception as error:
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        self._inbox.end(error)
        self._outbox.end(error or StreamClosed("the stream is over: it takes no more audio", "open another one"))

    async def _converse(self, socket: ClientConnection) -> str | None:
        """Talk until the stream is over (None) or the connection breaks (why)."""
        async with socket:
            self._outbox.rewind(self.ready.received)
            try:
                async with asyncio.TaskGroup() as tasks:
                    feeding = tasks.create_task(self._feed(socket))
                    broken = await self._listen(socket)
                    feeding.cancel()
                return broken
            except asyncio.CancelledError:
                await self._say_cancel(socket)
                raise

    async def _feed(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosed):  # who listens hears of it too
            while True:
                await socket.send(self._wire.render(await self._outbox.get()))

    async def _listen(self, socket: ClientConnection) -> str | None:
        try:
            while not self._inbox.is_over:
                message = self._wire.parse(await socket.recv())
                self._patience = None
                if message is not None:
                    self._take(message)
        except ConnectionClosed as closed:
            return str(closed)
        except ClientError as error:
            self._end(error)
            await self._say_cancel(socket)
        return None

    def _take(self, message: FromServer) -> None:
        match message:
            case Received(received=received):
                self._outbox.acknowledge(received)
            case Error() | Failed():
                raise error_from_message(message)
            case Pong():
                pass
            case message if isinstance(message, Event):
                self._deliver(message)
            case _:
                raise BadMessage(f"the server sent {message!r} in the middle of a stream of events")

    def _deliver(self, event: Event) -> None:
        """Each event once; a finalize that was sent twice is answered twice."""
        if event.seq <= self._seq:
            return
        self._seq = event.seq
        if isinstance(event, Marker):
            if event.id not in self._unanswered:
                return
            self._unanswered.remove(event.id)
            self._outbox.finalize_answered(event.id)
        self._inbox.put(event)
        if isinstance(event, Finished | Cancelled):
            self._end(None)

    async def _come_back(self, broken: str) -> ClientConnection:
        """A new connection that goes on with the stream. Raises ConnectionLost."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        if self._patience is None:  # else the last connection brought nothing
            self._patience = ReconnectBackoff(self.ready.resume_seconds, since)
        patience, wait = self._patience, 0.0
        last: Exception | None = None
        while True:
            wait = max(wait, patience.next_delay())
            if loop.time() + wait >= patience.deadline:
                raise self._lost(broken, last) from last
            await asyncio.sleep(wait)
            try:
                async with asyncio.timeout_at(patience.deadline):
                    resume = Resume(token=self.ready.token, seq=self._seq)
                    socket, self.ready = await open_socket(self._address, self._wire, (resume,))
            except (CannotConnect, ServerBusy) as error:
                last, wait = error, getattr(error, "retry_after", None) or 0.0
            except TimeoutError:
                last = last or CannotConnect("no answer in time")  # what was said before tells more
            except ClientError as error:
                raise self._lost(broken, error) from error
            else:
                self.breaks += 1
                log.warning("the connection broke (%s); resumed after %.1f s", broken, loop.time() - since)
                return socket

    def _lost(self, broken: str, last: Exception | None) -> ConnectionLost:
        within = f"could not be resumed within {self.ready.resume_seconds:g} s"
        return ConnectionLost(
            f"the connection broke ({broken}) and {within}{f': {last}' if last else ''}",
            "what came before is there; start a new stream for the rest",
        )

    async def _say_cancel(self, socket: ClientConnection) -> None:
        """So that the server need not wait for us to come back."""
        with suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await socket.send(self._wire.render(Cancel()))
