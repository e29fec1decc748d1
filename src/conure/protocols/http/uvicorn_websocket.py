"""uvicorn's WebSocket protocol with a synchronous fast path for audio.

    bytes ──> complete binary messages, and the application is waiting ──> its audio receiver, synchronously
        └───> anything else ──> parser ──> queue ──> the application's `receive`

The fast path is used only while the parser is between two messages and the queue is empty, so messages stay in order.
An application enables it with the function at `scope["extensions"][DIRECT_AUDIO][SET_RECEIVER]`, which it calls with
its receiver. Messages that arrive together are joined, as the cost is per message; an application that needs message
boundaries passes `joined=False`.

The connection is read while the application is busy, so that pings are answered, until megabytes are queued.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import OPEN, Protocol
from websockets.server import ServerProtocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # it was installed without its extension
    from websockets.utils import apply_mask

from conure.protocols.error_codes import ERROR_CODES
from conure.protocols.http.connection_limits import FIRST_MESSAGE_SECONDS, IDLE_SECONDS, OVER_CAPACITY, Connection
from conure.safe_text import close_reason

__all__ = ["DIRECT_AUDIO", "SET_RECEIVER", "DirectWebSocket", "AudioReceiver"]

AudioReceiver = Callable[[bytes], bool]
"""Called with one binary message or several joined ones; returns False if it has not accepted them: they are queued."""

DIRECT_AUDIO, SET_RECEIVER = "conure.direct_audio", "set_receiver"
FLUSH_SECONDS = 5.0
"""For the client to read the last messages before the connection is closed."""
MAX_QUEUED_BYTES = 2**23
"""Bytes of queued messages, above which reading pauses."""
MESSAGE_OVERHEAD = 256
"""Bytes charged for each message in addition to its own."""
LARGE_BYTES, MAX_INCOMPLETE_BYTES = 2**20, 2**29
"""Size from which an incomplete message counts, and the limit for all such messages of a process."""
TRY_AGAIN = 1013
INVALID_TEXT = 1007
"""Close code for text that is not UTF-8."""
WHOLE_BINARY = 0x82
"""First byte of a binary message in one frame."""
MASKED = 0x80
HEADER_BYTES, HEADER_BYTES_16 = 6, 8
"""Size of the header of a masked frame with 7-bit and with 16-bit length."""


class DirectWebSocket(WebSocketsSansIOProtocol):
    """Aborts the connection some seconds after the application has finished, even if the client does not read."""

    incomplete_bytes: ClassVar[int] = 0
    """Bytes of large incomplete messages of all connections."""

    def __init__(self, *args: Any, connection: Connection, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _FrameProtocol(max_size=self.config.ws_max_size, logger=self.logger)
        self.connection = connection
        self._is_lost = False
        self._is_alive = self._has_received = False
        """Whether either side sent a message since the last check; whether the client ever sent one."""
        self._receiver: AudioReceiver | None = None
        self._joins_messages = True
        """Whether messages are joined for the receiver."""
        self._sizes: deque[int] = deque()
        """Bytes of each queued message, with its overhead."""
        self._queued_bytes = self._incomplete_bytes = 0
        """Bytes of all queued messages, and of a large incomplete one."""
        self._is_awaited = False
        """The application has processed all messages and waits for more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connection.set_owner(self, self.transport)
        self.connection.set_deadline(FIRST_MESSAGE_SECONDS, self._check_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._is_lost = True
        self.connection.mark_closed()
        self._count_incomplete()

    def end(self, reason: str) -> None:
        self._fail(
            "busy" if reason == OVER_CAPACITY else "idle",
            "connection limit reached" if reason == OVER_CAPACITY else "no messages",
        )
        if reason == OVER_CAPACITY:
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        """Called by `LimitedHttpProtocol`, which has parsed the head."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions = self.scope["extensions"] or {}
            self.scope["extensions"] = extensions | {DIRECT_AUDIO: {SET_RECEIVER: self._set_receiver}}

    def _set_receiver(self, receiver: AudioReceiver, *, joined: bool = True) -> None:
        self._receiver, self._joins_messages = receiver, joined

    def data_received(self, data: bytes) -> None:
        if self._is_awaited and self._receiver and self._is_between_messages():
            data = _pass_to_receiver(data, self._receiver, self._joins_messages)
            if not data:
                self._mark_received()
                return
        super().data_received(data)
        self._count_incomplete()

    def _count_incomplete(self) -> None:
        """Counts the bytes of a large incomplete message; over the limit, closes the connection with `TRY_AGAIN`."""
        size = 0 if self._is_lost else len(self.conn.reader.buffer) + (self.conn.current_size or 0)
        previous, self._incomplete_bytes = self._incomplete_bytes, size if size >= LARGE_BYTES else 0
        DirectWebSocket.incomplete_bytes += self._incomplete_bytes - previous
        if (
            self._incomplete_bytes > previous
            and DirectWebSocket.incomplete_bytes > MAX_INCOMPLETE_BYTES
            and self.conn.state is OPEN
        ):
            self.conn.fail(TRY_AGAIN, "too many large messages are incomplete")
            self.handle_parser_exception()

    def _is_between_messages(self) -> bool:
        conn = self.conn
        return not conn.reader.buffer and conn.current_size is None and conn.state is OPEN and self.queue.empty()

    def send_receive_event_to_app(self) -> None:
        """Closes the connection on text that is not UTF-8, as uvicorn does, but without a traceback."""
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_text(b"".join(self.frames)):
            self.frames = []
            if self.conn.state is OPEN:  # else the client's close frame follows, and is answered next
                self.conn.send_close(INVALID_TEXT)
                self.handle_parser_exception()
            return
        self._mark_received()
        size = sum(map(len, self.frames)) + MESSAGE_OVERHEAD
        was_paused, self.read_paused = self.read_paused, True  # else uvicorn would pause reading here
        super().send_receive_event_to_app()
        self.read_paused = was_paused
        if not self.close_sent:
            self._sizes.append(size)
            self._queued_bytes += size
            if self._queued_bytes > MAX_QUEUED_BYTES and not was_paused:
                self.read_paused = True
                self.transport.pause_reading()

    def handle_ping(self) -> None:
        if not self.close_sent:  # no frame may follow a close frame
            super().handle_ping()

    async def receive(self) -> Any:
        self._is_awaited = True
        try:
            message = await super().receive()
        finally:
            self._is_awaited = False
        if message["type"] == "websocket.receive":
            self._queued_bytes -= self._sizes.popleft()
        return message

    async def send(self, message: Any) -> None:
        self._is_alive = self._has_received
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = (
                True  # the handshake was rejected with a response, which uvicorn would treat as an error
            )

    async def run_asgi(self) -> None:
        await super().run_asgi()
        asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.transport.abort)

    def handle_parser_exception(self) -> None:
        """Sends the close frame, then reads and drops the rest: an early close would reset the connection."""
        if self.close_sent or self.conn.close_sent is None:
            return
        self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.close_timer = self.loop.call_later(FLUSH_SECONDS, self.transport.close)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": self.conn.close_sent.code})

    def _mark_received(self) -> None:
        self._is_alive = self._has_received = True
        if not self.connection.is_identified:
            self.connection.mark_message_received()

    def _check_alive(self) -> None:
        if self._is_alive:
            self._is_alive = False
            self.connection.set_deadline(IDLE_SECONDS, self._check_alive)
        else:
            self.connection.close("idle")

    def _fail(self, code: str, reason: str) -> None:
        if self.close_sent:
            return
        if self.conn.state is OPEN:
            self.conn.send_close(ERROR_CODES[code].close, close_reason(f"{code}: {reason}"))
            self.handle_parser_exception()
        else:
            self.transport.close()


class _FrameProtocol(ServerProtocol):
    """Starts at the first frame: the handshake's head has already been parsed."""

    def parse(self) -> Generator[None]:
        return Protocol.parse(self)


def _is_text(data: bytes) -> bool:
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False


def _pass_to_receiver(data: bytes, receive: AudioReceiver, joined: bool) -> bytes:
    """Passes the complete binary messages at the beginning to `receive`; returns the rest, for the parser."""
    at, size, parts = 0, len(data), []
    while size - at > HEADER_BYTES and data[at] == WHOLE_BINARY and data[at + 1] > MASKED:
        length, begin = data[at + 1] - MASKED, at + HEADER_BYTES
        if length == 126:
            length, begin = data[at + 2] << 8 | data[at + 3], at + HEADER_BYTES_16
        elif length == 127:
            break
        end = begin + length
        if end > size:
            break
        part = apply_mask(data[begin:end], data[begin - 4 : begin])
        if joined:
            parts.append(part)
        elif not receive(part):
            break
        at = end
    if parts and not receive(parts[0] if len(parts) == 1 else b"".join(parts)):
        return data
    return data[at:]
