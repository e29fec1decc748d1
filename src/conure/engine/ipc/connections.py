"""The engine process's side of its client connections.

Each connection has its own ring, a reader thread and a writer thread, so a client that does not read delays no other.
Its send queue is bounded: a client that exceeds the bound is disconnected. When a connection ends, its streams are
cancelled.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from msgspec import MsgspecError, msgpack

from conure.background import spawn_thread
from conure.engine.ipc.frames import encode_frame, receive_frame
from conure.engine.ipc.sample_ring import SampleRing
from conure.engine.ipc.wire import EngineMessage, Ready, RequestDecoder, connect_decoder
from conure.engine.loop import Engine
from conure.engine.messages import CapacityChanged, Disconnect, EngineEvent, Pong, StepTaken, StreamEvent, connection_of
from conure.engine.plan import ModelInfo

__all__ = ["PARENT", "EngineConnections"]

log = logging.getLogger(__name__)

PARENT = 0
"""The parent process's connection: it receives the steps' statistics, and the engine stops when it ends."""
MAX_QUEUED = 1000
"""Deliveries that one connection may leave unread."""
MAX_QUEUED_STEPS = MAX_QUEUED // 2
"""Limit for deliveries of nothing but StepTaken: these statistics may be dropped, so they disconnect no client that is
held up."""
FLUSH_TIMEOUT = 5.0
"""Seconds to send what is queued when a connection ends."""
STOP_TIMEOUT = 10.0
"""Seconds for the engine to stop after the parent's connection ended; a step may never return."""
ACCEPT_RETRY_DELAY = 0.5
"""Seconds after a failed accept: the process may have no file descriptor left."""


class EngineConnections:
    def __init__(self) -> None:
        self._connections: dict[int, _Connection] = {}
        self._lock = threading.Lock()

    def deliver(self, messages: Sequence[StreamEvent | EngineEvent]) -> None:
        """Queues the messages for their connections, those of one connection as one delivery. Never blocks."""
        by_connection: dict[int, list[EngineMessage]] = defaultdict(list)
        for message in messages:
            by_connection[_target(message)].append(message)
        for number, group in by_connection.items():
            if connection := self._connections.get(number):
                connection.send(group)

    def serve(
        self, engine: Engine, models: Sequence[ModelInfo], started_at: float, parent: tuple[socket.socket, str],
        listener: socket.socket | None,
    ) -> None:  # fmt: skip
        """Starts the threads. `started_at`: the clock (`time.time`) when the parent started this process."""
        ready = Ready(tuple(models), time.time() - started_at, os.getpid())
        self._add(PARENT, *parent, engine, ready)
        if listener is not None:
            spawn_thread(partial(self._accept, listener, engine, ready), "accepting connections")

    def flush(self) -> None:
        """Waits until all queues are sent, at most FLUSH_TIMEOUT for each."""
        for connection in list(self._connections.values()):
            connection.finish_writing()

    def _accept(self, listener: socket.socket, engine: Engine, ready: Ready) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError as error:
                log.error("cannot accept a connection: %s", error)
                time.sleep(ACCEPT_RETRY_DELAY)
                continue
            spawn_thread(partial(self._handshake, accepted, engine, ready), "greeting a connection")

    def _handshake(self, accepted: socket.socket, engine: Engine, ready: Ready) -> None:
        """Closes the socket when it ends before its Connect message, or when that is invalid."""
        try:
            if (payload := receive_frame(accepted)) is not None:
                connect = connect_decoder().decode(payload)
                self._add(connect.connection, accepted, connect.ring, engine, ready)
                return
        except (MsgspecError, OSError) as error:
            log.warning("connection refused: %s", error)
        accepted.close()

    def _add(self, number: int, connected: socket.socket, ring: str, engine: Engine, ready: Ready) -> None:
        with self._lock:
            if previous := self._connections.get(number):
                previous.shut_down()
                previous.ended.wait()  # its streams are cancelled before the same numbers are used again
            connection = self._connections[number] = _Connection(number, connected, SampleRing.attach(ring))
        connection.send([ready])
        spawn_thread(partial(self._read, connection, engine), "reading requests")

    def _read(self, connection: _Connection, engine: Engine) -> None:
        """Cancels the connection's streams at its end, whatever ended it."""
        try:
            while (payload := receive_frame(connection.socket)) is not None:
                for request in connection.reader.decode(payload):
                    engine.submit(request)
        finally:
            if self._connections.get(connection.number) is connection:
                del self._connections[connection.number]
            if connection.number == PARENT:
                engine.stop()
            else:
                engine.submit(Disconnect(connection.number))
            connection.close()
        if connection.number == PARENT:
            time.sleep(STOP_TIMEOUT)
            os._exit(1)


class _Connection:
    def __init__(self, number: int, connected: socket.socket, ring: SampleRing) -> None:
        self.number = number
        self.socket = connected
        self.reader = RequestDecoder(ring)
        self.ended = threading.Event()
        """No more requests come from it, and the engine has its Disconnect."""
        self._ring = ring
        self._send_queue: queue.SimpleQueue[list[EngineMessage] | None] = queue.SimpleQueue()
        self._writer = spawn_thread(self._write, "writing answers", lambda _: self.shut_down())

    def send(self, messages: list[EngineMessage]) -> None:
        queued = self._send_queue.qsize()
        if queued >= MAX_QUEUED_STEPS and all(isinstance(message, StepTaken) for message in messages):
            return
        if queued < MAX_QUEUED:
            self._send_queue.put(messages)
        else:
            log.error("connection %d does not read: disconnecting it", self.number)
            self.shut_down()

    def shut_down(self) -> None:
        """Ends both threads: their next read or write finds the socket closed."""
        with contextlib.suppress(OSError):  # it was closed before
            self.socket.shutdown(socket.SHUT_RDWR)

    def finish_writing(self) -> None:
        self._send_queue.put(None)
        self._writer.join(FLUSH_TIMEOUT)

    def close(self) -> None:
        self.ended.set()
        self.shut_down()
        self.finish_writing()
        self.socket.close()
        self._ring.close()

    def _write(self) -> None:
        encoder = msgpack.Encoder()
        while (messages := self._send_queue.get()) is not None:
            try:
                self.socket.sendall(encode_frame(encoder.encode(messages)))
            except OSError:
                self.shut_down()
                return


def _target(message: StreamEvent | EngineEvent) -> int:
    """The connection that a message is for."""
    if isinstance(message, StepTaken | CapacityChanged):
        return PARENT
    return connection_of(message.number if isinstance(message, Pong) else message.stream)
