"""A thread instead of an engine process, over the same socket and ring, which can be killed.

Every Finalize is answered with its marker, every Ping with a Pong. Killing it closes its socket at once, with unread
data in it; the "process" is joined a moment later, as a real one is.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any

from msgspec import msgpack

from conure.engine.ipc.frames import encode_frame, receive_frame
from conure.engine.ipc.sample_ring import SampleRing
from conure.engine.ipc.wire import EngineMessage, Ready, RequestDecoder, Starting, connect_decoder
from conure.engine.messages import Finalize, Open, Ping, Pong, StreamOpened
from conure.engine.messages import Marker as Answered

__all__ = ["StubListener", "StubProcess"]

DYING = 0.02
"""Seconds from the end of its socket to the end of its process."""


def serve(end: socket.socket, ring: SampleRing, *, silent: bool = False) -> None:
    """Until the socket is closed. `silent`: reads everything and sends only Ready."""
    reader, encoder = RequestDecoder(ring), msgpack.Encoder()
    with contextlib.suppress(OSError):
        end.sendall(encode_frame(encoder.encode([Ready((), 0.0, 1)])))
        while (payload := receive_frame(end)) is not None:
            answers: list[EngineMessage] = []
            for request in reader.decode(payload):
                match request:
                    case Open(stream):
                        answers.append(StreamOpened(stream))
                    case Finalize(stream, marker):
                        answers.append(Answered(stream, marker))
                    case Ping(number):
                        answers.append(Pong(number))
            if answers and not silent:
                end.sendall(encode_frame(encoder.encode(answers)))
    ring.close()


class StubProcess:
    """With the interface of `multiprocessing`'s process and context. `last` is the last one that was started."""

    last: StubProcess
    started = 0
    dies_at_start: range = range(0)
    """Numbers of those that die before they are ready."""
    silent: range = range(0)
    """Numbers of those that never answer."""
    hangs_at_start: range = range(0)
    """Numbers of those that say what they begin with, and then nothing until they are killed."""
    steps: tuple[float, ...] = ()
    """Seconds that each step of a start takes."""

    def __init__(self, target: Any, args: tuple[Any, ...], name: str) -> None:
        _, theirs, ring, *_ = args
        self.pid: int | None = None
        self.exitcode: int | None = None
        self._end: socket.socket = theirs.dup()
        self._ring: str = ring
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._killed, self._dead = threading.Event(), threading.Event()

    @classmethod
    def reset(cls) -> None:
        cls.started, cls.steps = 0, ()
        cls.dies_at_start = cls.silent = cls.hangs_at_start = range(0)

    def start(self) -> None:
        StubProcess.last, self.pid = self, 1
        StubProcess.started += 1
        self._number = StubProcess.started
        self._thread.start()

    def kill(self) -> None:
        self.exitcode = -9
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        self._end.close()
        self._killed.set()

    def is_alive(self) -> bool:
        return not self._dead.is_set()

    def join(self, timeout: float | None = None) -> None:
        self._dead.wait(timeout)

    def _run(self) -> None:
        if self._number in self.dies_at_start:
            self.kill()
        elif self._number in self.hangs_at_start:
            self._report_step("opening a model")
            self._killed.wait()
        else:
            for seconds in self.steps:
                time.sleep(seconds)
                self._report_step("opening a model")
            serve(self._end, SampleRing.attach(self._ring), silent=self._number in self.silent)
        time.sleep(DYING)
        self.exitcode = self.exitcode or 0
        self._end.close()
        self._dead.set()

    def _report_step(self, step: str) -> None:
        with contextlib.suppress(OSError):
            self._end.sendall(encode_frame(msgpack.encode([Starting(step)])))


class StubListener:
    """An engine that server processes connect to."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def kill(self) -> None:
        ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.kill()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = self._listener.accept()
                self._ends.append(end)
                threading.Thread(target=self._greet, args=(end,), daemon=True).start()

    def _greet(self, end: socket.socket) -> None:
        if (payload := receive_frame(end)) is not None:
            serve(end, SampleRing.attach(connect_decoder().decode(payload).ring))
