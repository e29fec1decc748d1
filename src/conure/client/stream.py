"""A live stream that survives broken connections.

Audio goes into a send queue, which keeps it until the server acknowledges it; events come from an event queue. One task
runs the connection between them. When it breaks, the task reconnects with the token of the stream and the number of the
last event: the server sends the later events, and the client sends the missing audio again. Senders and readers are not
interrupted until the server's resume timeout expires.
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
    CLOSE_TIMEOUT_SECONDS,
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
"""Audio kept in addition to the audio of the resume timeout."""

log = logging.getLogger(__name__)


class Stream:
    """One live stream: an async context manager that opens it, and an async iterator over its events.

    Exiting the context cancels the stream and discards what is not yet transcribed. For a complete transcript, call
    `close` and read the events to the end first.
    """

    def __init__(self, address: Address, hello: Hello, config: Config, wire_format: WireFormat = "binary") -> None:
        self._address = address
        self._hello = hello
        self._config = config
        self._codec = Codec(wire_format)
        self._send_lock = asyncio.Lock()
        self._events = EventQueue()
        self._seq = 0
        self._finalize_id = 0
        self._unanswered: set[int] = set()
        self._is_closing = False
        self._backoff: ReconnectBackoff | None = None
        self._queue: SendQueue
        self._task: asyncio.Task[None]
        self.ready: Ready
        """The server's last `ready` message (on open or resume): model, latency, token."""
        self.breaks = 0
        """Number of reconnects."""

    async def __aenter__(self) -> Self:
        socket, ready = await open_socket(self._address, self._codec, (self._hello, self._config))
        self.ready = ready
        rate = bytes_per_second(self._encoding, self._hello.sample_rate, self._hello.channels)
        self._queue = SendQueue(round(rate * (ready.resume_seconds + MARGIN_SECONDS)))
        self._task = asyncio.create_task(self._run(socket), name=f"stream {ready.stream_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._events.is_over:
            self._task.cancel()
        cancelled: asyncio.CancelledError | None = None
        while not self._task.done():  # the closing handshake has its own timeout
            try:
                await asyncio.wait([self._task])
            except asyncio.CancelledError as error_while_waiting:
                cancelled = error_while_waiting
        if cancelled is not None:
            raise cancelled

    async def send(self, audio: bytes | bytearray | memoryview | NDArray[Any]) -> None:
        """Sends audio: bytes in the encoding of the stream, or an array [n] or [channels, n] of floats or int16.

        Waits while the buffer of unacknowledged audio is full. A cancelled call with up to one second of audio has sent
        nothing. Raises BadInput, StreamClosed, or the error that ended the stream.
        """
        data = to_bytes(audio, self._encoding, self._hello.channels)
        async with self._send_lock:
            self._check_open()
            for packet in packets(data, self._encoding, self._hello.channels):
                await self._queue.put(packet)

    async def finalize(self) -> int:
        """Requests a final of everything sent so far; returns the id of the Marker that follows it."""
        async with self._send_lock:
            self._check_open()
            await self._queue.put(Finalize(id=self._finalize_id + 1))
            self._finalize_id += 1
            self._unanswered.add(self._finalize_id)
            return self._finalize_id

    async def close(self) -> None:
        """Ends the audio. The last finals follow, then Finished, then the iterator ends."""
        async with self._send_lock:
            if not self._is_closing:
                await self._queue.put(Close())
                self._is_closing = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event. Raises StreamFailed, ServerError, ConnectionLost, BadMessage or ReaderTooSlow."""
        event = await self._events.get()
        if event is None:
            raise StopAsyncIteration
        return event

    @property
    def _encoding(self) -> Encoding:
        return self._hello.encoding  # type: ignore[return-value]  # the type of the wire field is wider

    def _check_open(self) -> None:
        if self._is_closing:
            raise StreamClosed("the stream was closed and accepts no more audio", "open a new stream")

    async def _run(self, socket: ClientConnection) -> None:
        """Runs the connection, and reconnects, until the stream is over."""
        try:
            break_reason = await self._serve(socket)
            while break_reason is not None:
                socket = await self._reconnect(break_reason)
                break_reason = await self._serve(socket)
            self._end(None)
        except asyncio.CancelledError:
            self._end(StreamClosed("the stream's context was exited before its end"))
            raise
        except Exception as error:
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        self._events.end(error)
        self._queue.end(error or StreamClosed("the stream is over and accepts no more audio", "open a new stream"))

    async def _serve(self, socket: ClientConnection) -> str | None:
        """Sends and receives until the stream is over (None) or the connection breaks (its reason)."""
        async with socket:
            self._queue.rewind(self.ready.received)
            try:
                async with asyncio.TaskGroup() as tasks:
                    sending = tasks.create_task(self._send_queued(socket))
                    break_reason = await self._receive(socket)
                    sending.cancel()
                return break_reason
            except asyncio.CancelledError:
                await self._send_cancel(socket)
                raise

    async def _send_queued(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosed):  # `_receive` raises it, too
            while True:
                await socket.send(self._codec.render(await self._queue.get()))

    async def _receive(self, socket: ClientConnection) -> str | None:
        try:
            while not self._events.is_over:
                message = self._codec.parse(await socket.recv())
                self._backoff = None
                if message is not None:
                    self._process(message)
        except ConnectionClosed as closed:
            return str(closed)
        except ClientError as error:
            self._end(error)
            await self._send_cancel(socket)
        return None

    def _process(self, message: FromServer) -> None:
        match message:
            case Received(received=received):
                self._queue.acknowledge(received)
            case Error() | Failed():
                raise error_from_message(message)
            case Pong():
                pass
            case message if isinstance(message, Event):
                self._deliver(message)
            case _:
                raise BadMessage(f"the server sent {message!r} in a stream of events")

    def _deliver(self, event: Event) -> None:
        """Queues each event once. A finalize that was sent twice has two markers."""
        if event.seq <= self._seq:
            return
        self._seq = event.seq
        if isinstance(event, Marker):
            if event.id not in self._unanswered:
                return
            self._unanswered.remove(event.id)
            self._queue.finalize_answered(event.id)
        self._events.put(event)
        if isinstance(event, Finished | Cancelled):
            self._end(None)

    async def _reconnect(self, reason: str) -> ClientConnection:
        """Opens a new connection and resumes the stream on it. Raises ConnectionLost."""
        loop = asyncio.get_running_loop()
        broken_at = loop.time()
        if self._backoff is None:  # already set if the last connection received no message
            self._backoff = ReconnectBackoff(self.ready.resume_seconds, broken_at)
        backoff, wait = self._backoff, 0.0
        last: Exception | None = None
        while True:
            wait = max(wait, backoff.next_delay())
            if loop.time() + wait >= backoff.deadline:
                raise self._connection_lost(reason, last) from last
            await asyncio.sleep(wait)
            try:
                async with asyncio.timeout_at(backoff.deadline):
                    resume = Resume(token=self.ready.token, seq=self._seq)
                    socket, self.ready = await open_socket(self._address, self._codec, (resume,))
            except (CannotConnect, ServerBusy) as error:
                last, wait = error, getattr(error, "retry_after", None) or 0.0
            except TimeoutError:
                last = last or CannotConnect("no answer in time")  # an earlier error is more specific
            except ClientError as error:
                raise self._connection_lost(reason, error) from error
            else:
                self.breaks += 1
                log.warning("the connection broke (%s); resumed after %.1f s", reason, loop.time() - broken_at)
                return socket

    def _connection_lost(self, reason: str, last: Exception | None) -> ConnectionLost:
        within = f"could not be resumed within {self.ready.resume_seconds:g} s"
        return ConnectionLost(
            f"the connection broke ({reason}) and {within}{f': {last}' if last else ''}",
            "earlier events are valid; start a new stream for the rest",
        )

    async def _send_cancel(self, socket: ClientConnection) -> None:
        """Cancels the stream, so that the server does not wait for a resume."""
        with suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await socket.send(self._codec.render(Cancel()))
