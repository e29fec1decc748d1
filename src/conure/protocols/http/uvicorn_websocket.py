"""uvicorn's WebSocket protocol with a short way for audio.

    bytes ──> a whole binary message, and the door waits for one ──> the door's function, at once
        └───> anything else ──> parser ──> queue ──> the door's `receive`

The short way takes what the parser would make of the same bytes, as long as the parser is between two messages and the
queue is empty, so the order is kept. A door asks for it with what it finds in the scope's extensions as
DIRECT: a function, GIVE_TO, to be called with its own. Messages that came together are handed over as one, for tiny
ones cost as much each as long ones; a door to which it matters where a message ends says so.

A connection is read on while its door is busy, so that pings are answered; a queue of megabytes ends that.
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
"""Given one or more binary messages; False where they are to be queued, and were not taken."""

DIRECT_AUDIO, SET_RECEIVER = "conure.direct", "give_to"
FLUSH_SECONDS = 5.0
"""For a client to read what was sent before its connection was closed."""
MOST_QUEUED = 2**23
"""Bytes of messages that may wait for their door before a connection is not read."""
MESSAGE_COST = 256
"""Bytes that a message counts for beside its own."""
LARGE, MOST_UNFINISHED = 2**20, 2**29
"""Bytes of a message that is not whole yet, from which on it counts; of all such messages of a process together."""
TRY_AGAIN = 1013
NO_TEXT = 1007
"""Closes a connection whose text is not UTF-8."""
WHOLE_BINARY = 0x82
"""First byte of a binary message in one frame."""
MASKED = 0x80
SHORT, TWO_BYTES = 6, 8
"""Bytes before the data of a masked frame, by how its length is written."""


class DirectWebSocket(WebSocketsSansIOProtocol):
    """A connection ends a while after its door has left, whether the client reads or not."""

    unfinished: ClassVar[int] = 0
    """Bytes of large messages that are not whole yet, of all connections."""

    def __init__(self, *args: Any, connection: Connection, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _AfterHead(max_size=self.config.ws_max_size, logger=self.logger)
        self.connection = connection
        self._is_gone = False
        self._is_alive = self._has_spoken = False
        """Something was said since it was last looked at, by either side; the client has said something at all."""
        self._take: AudioReceiver | None = None
        self._is_joined = True
        """Whether messages may be handed over as one."""
        self._sizes: deque[int] = deque()
        """Of the messages that wait for the door."""
        self._queued = self._unfinished = 0
        """Bytes of them, and of a large one that is not whole yet."""
        self._is_awaited = False
        """The door has dealt with everything before, and waits for more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connection.set_owner(self, self.transport)
        self.connection.set_deadline(FIRST_MESSAGE_SECONDS, self._look_whether_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._is_gone = True
        self.connection.mark_closed()
        self._weigh()

    def end(self, why: str) -> None:
        """Where there is no room, or nothing was said for long."""
        self._fail(
            "busy" if why == OVER_CAPACITY else "idle",
            "no room for more" if why == OVER_CAPACITY else "nothing is said",
        )
        if why == OVER_CAPACITY:
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        """Called by whoever has read the head."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions = self.scope["extensions"] or {}
            self.scope["extensions"] = extensions | {DIRECT_AUDIO: {SET_RECEIVER: self._give_to}}

    def _give_to(self, take: AudioReceiver, *, joined: bool = True) -> None:
        self._take, self._is_joined = take, joined

    def data_received(self, data: bytes) -> None:
        if self._is_awaited and self._take and self._is_between_messages():
            data = _hand_over(data, self._take, self._is_joined)
            if not data:
                self._hear()
                return
        super().data_received(data)
        self._weigh()

    def _weigh(self) -> None:
        """What is not whole yet of a large message; where there is too much of it a client is told to try again."""
        size = 0 if self._is_gone else len(self.conn.reader.buffer) + (self.conn.current_size or 0)
        before, self._unfinished = self._unfinished, size if size >= LARGE else 0
        DirectWebSocket.unfinished += self._unfinished - before
        if self._unfinished > before and DirectWebSocket.unfinished > MOST_UNFINISHED and self.conn.state is OPEN:
            self.conn.fail(TRY_AGAIN, "too many large messages are on their way")
            self.handle_parser_exception()

    def _is_between_messages(self) -> bool:
        conn = self.conn
        return not conn.reader.buffer and conn.current_size is None and conn.state is OPEN and self.queue.empty()

    def send_receive_event_to_app(self) -> None:
        """A text that is none ends the connection, as it would, but a stranger's bytes are not worth a traceback."""
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_text(b"".join(self.frames)):
            self.frames = []
            if self.conn.state is OPEN:  # else its farewell came with it, and is answered next
                self.conn.send_close(NO_TEXT)
                self.handle_parser_exception()
            return
        self._hear()
        size = sum(map(len, self.frames)) + MESSAGE_COST
        was_paused, self.read_paused = self.read_paused, True  # else reading would be paused now
        super().send_receive_event_to_app()
        self.read_paused = was_paused
        if not self.close_sent:
            self._sizes.append(size)
            self._queued += size
            if self._queued > MOST_QUEUED and not was_paused:
                self.read_paused = True
                self.transport.pause_reading()

    def handle_ping(self) -> None:
        if not self.close_sent:  # there is nothing to be said after the farewell
            super().handle_ping()

    async def receive(self) -> Any:
        self._is_awaited = True
        try:
            message = await super().receive()
        finally:
            self._is_awaited = False
        if message["type"] == "websocket.receive":
            self._queued -= self._sizes.popleft()
        return message

    async def send(self, message: Any) -> None:
        self._is_alive = self._has_spoken
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # it was refused with an answer, which uvicorn would take for an error

    async def run_asgi(self) -> None:
        await super().run_asgi()
        asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.transport.abort)

    def handle_parser_exception(self) -> None:
        """Says what was wrong, then reads and drops the rest: a reset would overtake the reason."""
        if self.close_sent or self.conn.close_sent is None:
            return
        self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.close_timer = self.loop.call_later(FLUSH_SECONDS, self.transport.close)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": self.conn.close_sent.code})

    def _hear(self) -> None:
        self._is_alive = self._has_spoken = True
        if not self.connection.is_identified:
            self.connection.mark_message_received()

    def _look_whether_alive(self) -> None:
        if self._is_alive:
            self._is_alive = False
            self.connection.set_deadline(IDLE_SECONDS, self._look_whether_alive)
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


class _AfterHead(ServerProtocol):
    """Begins with the first frame: the head was read by whoever had the connection before."""

    def parse(self) -> Generator[None]:
        return Protocol.parse(self)


def _is_text(data: bytes) -> bool:
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False


def _hand_over(data: bytes, take: AudioReceiver, joined: bool) -> bytes:
    """The whole binary messages at the beginning; what is left is for the parser."""
    at, size, parts = 0, len(data), []
    while size - at > SHORT and data[at] == WHOLE_BINARY and data[at + 1] > MASKED:
        length, begin = data[at + 1] - MASKED, at + SHORT
        if length == 126:
            length, begin = data[at + 2] << 8 | data[at + 3], at + TWO_BYTES
        elif length == 127:
            break
        end = begin + length
        if end > size:
            break
        part = apply_mask(data[begin:end], data[begin - 4 : begin])
        if joined:
            parts.append(part)
        elif not take(part):
            break
        at = end
    if parts and not take(parts[0] if len(parts) == 1 else b"".join(parts)):
        return data
    return data[at:]
