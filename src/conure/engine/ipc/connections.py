"""Those that ask an engine from other processes, as the engine's process sees them.

Each has a ring of its own, a thread that reads and one that writes: one that does not read holds nobody else up. What
waits for it is bounded; then it is cut off, and so is one whose process ended: nobody waits for its streams any more.
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

from conure.background import thread
from conure.engine.ipc.frames import frame, receive_frame
from conure.engine.ipc.sample_ring import SampleRing
from conure.engine.ipc.wire import FromEngine, Ready, RequestReader, connect_reader
from conure.engine.loop import Engine
from conure.engine.messages import Answer, Leave, Note, Pong, QueueRoom, StepTaken, connection_of
from conure.engine.plan import ModelInfo

__all__ = ["STARTER", "EngineConnections"]

log = logging.getLogger(__name__)

STARTER = 0
"""The connection of whoever started the engine: it is told of turns, and the engine ends with it."""
MOST_WAITING = 1000
"""Deliveries that one connection has not read."""
MOST_TURNS_WAITING = MOST_WAITING // 2
"""The same, with those that tell of turns alone: what is counted may be left out, and ends nobody who is held up."""
LAST_WORDS = 5.0
"""Seconds for them to be read when the engine ends."""
LAST_TURN = 10.0
"""Seconds for the engine to end by itself when whoever started it has gone; a turn may never return."""
RETRY = 0.5
"""Seconds after which it is tried again to accept a connection: there may be no descriptor left."""


class EngineConnections:
    def __init__(self) -> None:
        self._all: dict[int, _Connection] = {}
        self._lock = threading.Lock()

    def deliver(self, answers: Sequence[Answer | Note]) -> None:
        """To whom each concerns, what was said together in one piece. Never waits."""
        told: dict[int, list[FromEngine]] = defaultdict(list)
        for answer in answers:
            told[_whose(answer)].append(answer)
        for number, some in told.items():
            if connection := self._all.get(number):
                connection.tell(some)

    def serve(
        self, engine: Engine, cards: Sequence[ModelInfo], begun: float, starter: tuple[socket.socket, str],
        listener: socket.socket | None,
    ) -> None:  # fmt: skip
        """Returns at once. `begun`: the clock when whoever started it began to."""
        ready = Ready(tuple(cards), time.time() - begun, os.getpid())
        self._begin(STARTER, *starter, engine, ready)
        if listener is not None:
            thread(partial(self._accept, listener, engine, ready), "accepting connections")

    def flush(self) -> None:
        """Waits until everything is sent, a while at most."""
        for connection in list(self._all.values()):
            connection.finish()

    def _accept(self, listener: socket.socket, engine: Engine, ready: Ready) -> None:
        while True:
            try:
                end, _ = listener.accept()
            except OSError as error:
                log.error("a connection cannot be accepted: %s", error)
                time.sleep(RETRY)
                continue
            thread(partial(self._greet, end, engine, ready), "greeting a connection")

    def _greet(self, end: socket.socket, engine: Engine, ready: Ready) -> None:
        """One that leaves before it was introduced, or says something else, is hung up on."""
        try:
            if (said := receive_frame(end)) is not None:
                first = connect_reader().decode(said)
                self._begin(first.connection, end, first.ring, engine, ready)
                return
        except (MsgspecError, OSError) as error:
            log.warning("a connection is refused: %s", error)
        end.close()

    def _begin(self, number: int, end: socket.socket, ring: str, engine: Engine, ready: Ready) -> None:
        with self._lock:
            if before := self._all.get(number):
                before.cut()
                before.gone.wait()  # its streams are cancelled before there are others of the same numbers
            connection = self._all[number] = _Connection(number, end, SampleRing.attach(ring))
        connection.tell([ready])
        thread(partial(self._read, connection, engine), "reading requests")

    def _read(self, connection: _Connection, engine: Engine) -> None:
        """However it ends, its streams end with it."""
        try:
            while (payload := receive_frame(connection.end)) is not None:
                for request in connection.reader.decode(payload):
                    engine.ask(request)
        finally:
            if self._all.get(connection.number) is connection:
                del self._all[connection.number]
            if connection.number == STARTER:
                engine.stop()
            else:
                engine.ask(Leave(connection.number))
            connection.close()
        if connection.number == STARTER:
            time.sleep(LAST_TURN)
            os._exit(1)


class _Connection:
    def __init__(self, number: int, end: socket.socket, ring: SampleRing) -> None:
        self.number = number
        self.end = end
        self.reader = RequestReader(ring)
        self.gone = threading.Event()
        """Nothing more comes from it, and the engine was told so."""
        self._ring = ring
        self._outbox: queue.SimpleQueue[list[FromEngine] | None] = queue.SimpleQueue()
        self._writing = thread(self._write, "writing answers", lambda _: self.cut())

    def tell(self, messages: list[FromEngine]) -> None:
        waiting = self._outbox.qsize()
        if waiting >= MOST_TURNS_WAITING and all(isinstance(message, StepTaken) for message in messages):
            return
        if waiting < MOST_WAITING:
            self._outbox.put(messages)
        else:
            log.error("connection %d does not read; it is cut off", self.number)
            self.cut()

    def cut(self) -> None:
        """Who reads and who writes find it closed."""
        with contextlib.suppress(OSError):  # it was closed before
            self.end.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        self._outbox.put(None)
        self._writing.join(LAST_WORDS)

    def close(self) -> None:
        self.gone.set()
        self.cut()
        self.finish()
        self.end.close()
        self._ring.close()

    def _write(self) -> None:
        encoder = msgpack.Encoder()
        while (messages := self._outbox.get()) is not None:
            try:
                self.end.sendall(frame(encoder.encode(messages)))
            except OSError:
                self.cut()
                return


def _whose(answer: Answer | Note) -> int:
    if isinstance(answer, StepTaken | QueueRoom):
        return STARTER
    return connection_of(answer.number if isinstance(answer, Pong) else answer.stream)
