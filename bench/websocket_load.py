"""Cheap clients in a process of their own: one thread, plain sockets, frames that were made before.

A client that makes and parses messages costs more than the server. These write the same bytes again and again, and of
what they read look only at the answers of a few, which ask questions.
"""

from __future__ import annotations

import select
import socket
import statistics
import struct
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from bench.visits import upgrade
from conure.bench.sample_speech import RATE, shipped, voices

__all__ = ["LATENCY_MS", "Asked", "Heard", "HttpAsked", "post", "speak"]

LATENCY_MS = 320
"""From an answer with words to the next one."""
PATIENCE = 30.0
ASKING = 20
"""Clients that ask, one question at a time, so often a second."""
QUESTIONS = 5
LOOK_EVERY = 0.001
"""Seconds between looks at what came: how exactly answers are timed."""


@dataclass(frozen=True)
class Asked:
    port: int
    sockets: int
    packet_ms: int
    seconds: float


@dataclass(frozen=True)
class Heard:
    packets: int
    """That were written."""
    p50: float
    """Seconds from a question to its answer."""
    p99: float
    is_behind: bool
    """Packets found no room, or clients could not write as often as they should."""


@dataclass(frozen=True)
class HttpAsked:
    port: int
    clients: int
    body: int
    """Bytes to upload; 0 for a small question."""
    seconds: float


def speak(end: Connection, asked: Asked) -> None:
    """Says None once all are connected, and Heard after so many seconds from the word."""
    crowd = _Crowd(asked)
    end.send(None)
    end.recv()
    end.send(crowd.run())
    end.recv()


class _Crowd:
    def __init__(self, asked: Asked) -> None:
        (pcm,) = voices(shipped(), 1.0, 1)
        self._packet = _frame(2, pcm[: 2 * RATE * asked.packet_ms // 1000])
        self._question = _frame(1, b'{"type":"ping"}')
        self._asked = asked
        self._sockets = [_connected(asked.port) for _ in range(asked.sockets)]
        self._by_file = {one.fileno(): number for number, one in enumerate(self._sockets)}
        self._poll = select.epoll()
        for one in self._sockets:
            self._poll.register(one, select.EPOLLIN)
        self._since: dict[int, float] = {}
        """When a question was asked that was not answered yet, by number."""
        self._waited: list[float] = []
        self._is_stuck = False

    def run(self) -> Heard:
        count, interval = len(self._sockets), self._asked.packet_ms / 1000 / len(self._sockets)
        begin, sent, questions = time.monotonic(), 0, 0
        look, end = begin, begin + self._asked.seconds
        while (now := time.monotonic()) < end and not self._is_stuck:
            while begin + sent * interval <= now:
                self._send(sent % count, self._packet)
                sent += 1
            if now >= look:
                look = now + LOOK_EVERY
                self._look()
                if begin + questions / (ASKING * QUESTIONS) <= now:
                    self._ask(questions % ASKING * count // ASKING)
                    questions += 1
            time.sleep(max(0.0, begin + sent * interval - time.monotonic()))
        late = (time.monotonic() - begin) / interval - sent > count
        self._waited += [time.monotonic() - since for since in self._since.values()]
        waited = sorted(self._waited) or [PATIENCE]
        p99 = waited[min(len(waited) - 1, round(0.99 * len(waited)))]
        return Heard(sent, statistics.median(waited), p99, self._is_stuck or late)

    def _send(self, number: int, data: bytes) -> None:
        try:
            self._is_stuck |= self._sockets[number].send(data) < len(data)
        except BlockingIOError:
            self._is_stuck = True

    def _ask(self, number: int) -> None:
        if number not in self._since:
            self._since[number] = time.monotonic()
            self._send(number, self._question)

    def _look(self) -> None:
        for file, _ in self._poll.poll(0, len(self._sockets)):
            number = self._by_file[file]
            data = self._sockets[number].recv(65_536)
            assert data, "the server hung up"
            if number in self._since and b'"pong"' in data:
                self._waited.append(time.monotonic() - self._since.pop(number))


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(upgrade("/v1/stream"))
    assert b"101" in connection.recv(4_096)
    connection.sendall(_frame(1, b'{"type":"config","latency_ms":%d}' % LATENCY_MS))
    connection.setblocking(False)
    return connection


def _frame(opcode: int, data: bytes) -> bytes:
    """Masked with zeros, which costs a server as much as any other mask."""
    length = struct.pack("!B", 128 | len(data)) if len(data) < 126 else struct.pack("!BH", 254, len(data))
    return bytes([128 | opcode]) + length + bytes(4) + data


def post(end: Connection, asked: HttpAsked) -> None:
    """Each client asks again once it was answered. Says how many were, and the seconds each took."""
    path, method = ("/upload", "POST") if asked.body else ("/small", "GET")
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {asked.body}\r\n\r\n".encode()
    request = head + bytes(asked.body)
    clients = [socket.create_connection(("127.0.0.1", asked.port), timeout=PATIENCE) for _ in range(asked.clients)]
    poll = select.epoll()
    for client in clients:
        poll.register(client, select.EPOLLIN)
    by_file = {client.fileno(): client for client in clients}
    end.send(None)
    end.recv()
    until, waited = time.monotonic() + asked.seconds, []
    asked_at = {}
    for file, client in by_file.items():
        asked_at[file] = time.monotonic()
        client.sendall(request)
    while time.monotonic() < until:
        for file, _ in poll.poll(PATIENCE):
            answer = by_file[file].recv(4_096)
            assert answer.startswith((b"HTTP/1.1 200", b"{")), answer
            if answer.endswith(b"}"):  # head and body may come apart
                waited.append(time.monotonic() - asked_at[file])
                asked_at[file] = time.monotonic()
                by_file[file].sendall(request)
    end.send(waited)
    end.recv()
